//! The list of configuration fields that do not change what a model computes, grouped by reason.
//!
//! A field that a family did not read and that is not listed here is an error, because ignoring a setting would give a
//! model that runs and computes wrong results. A field is listed when transformers' code of the families concerned
//! never reads it, or reads it only for something that fanfold does not do, such as training. The list deliberately
//! covers only fields that transformers writes for every model or that published files add; fields that a family reads
//! are not in it. Read `config.rs` next, where `Config::understood` consults the list.

use serde_json::Value;

/// The families that always normalise queries and keys, so that stating `use_qk_norm: true` changes nothing.
const QK_NORM: &[&str] = &["qwen3", "qwen3_moe", "gemma3_text", "gemma3", "olmo2"];

/// The families whose linear layers have no bias by default, so that stating `bias: false` changes nothing. Where one
/// of these families can have biases, it reads the field for them itself.
const NO_BIAS: &[&str] = &[
    "llama",
    "mistral",
    "mixtral",
    "qwen3",
    "qwen3_moe",
    "gemma2",
    "gemma3_text",
    "gemma3",
    "phi3",
    "olmo2",
    "falcon",
];

/// The families of decoders, which predict tokens.
const DECODERS: &[&str] = &[
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen2_moe",
    "qwen3_moe",
    "gemma2",
    "gemma3_text",
    "gemma3",
    "phi3",
    "olmo2",
    "starcoder2",
    "gpt_neox",
    "falcon",
    "gpt2",
];

/// Fields that change nothing, whatever their value and the family: (reason, fields).
const ANY: &[(&str, &[&str])] = &[
    (
        "where the file is from",
        &[
            "architectures",
            "author",
            "auto_map",
            "base_model",
            "created_date",
            "custom_pipeline",
            "custom_pipelines",
            "dtype",
            "export_model_type",
            "finetuning_task",
            "is_llama_config",
            "keys_to_ignore_at_inference",
            "language",
            "license",
            "model_name",
            "model_type",
            "name",
            "name_or_path",
            "num_steps",
            "tokenizer_class",
            "torch_dtype",
            "transformers.js_config",
            "transformers_version",
            "unsloth_fixed",
            "unsloth_version",
            "use_safetensors",
        ],
    ),
    (
        "training",
        &[
            "attention_dropout",
            "attention_probs_dropout_prob",
            "attn_pdrop",
            "aux_loss_alpha",
            "classifier_dropout",
            "classifier_dropout_prob",
            "dropout",
            "embd_pdrop",
            "embedding_dropout",
            "ffn_dropout",
            "gradient_checkpointing",
            "gradient_checkpointing_kwargs",
            "hidden_dropout",
            "hidden_dropout_prob",
            "init_std",
            "initializer_factor",
            "initializer_range",
            "label_smoothing",
            "layerdrop",
            "neftune_noise_alpha",
            "output_router_logits",
            "problem_type",
            "qa_dropout",
            "resid_pdrop",
            "residual_dropout",
            "router_aux_loss_coef",
            "router_z_loss_coef",
            "seq_classif_dropout",
            "summary_first_dropout",
            "z_loss_weight",
        ],
    ),
    (
        "how training or serving was laid out, which gives the same numbers",
        &[
            "attn_implementation",
            "cache_implementation",
            "chunk_size_feed_forward",
            "experts_implementation",
            "pretraining_tp",
            "torchscript",
            "use_cache",
            "use_flash_attention",
            "use_flash_attention_2",
            "use_flash_attn",
            "use_sdpa",
            "xla_device",
        ],
    ),
    (
        "special tokens, which the tokenizer and the generation see to",
        &[
            "begin_suppress_tokens",
            "bos_token",
            "bos_token_id",
            "cls_token_id",
            "decoder_start_token_id",
            "do_lower_case",
            "eos_token",
            "eos_token_id",
            "eos_token_ids",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "mask_token_id",
            "pad_token",
            "pad_token_id",
            "prefix",
            "sep_token_id",
            "suppress_tokens",
            "unk_token",
            "unk_token_id",
        ],
    ),
    (
        "what a call returns, and heads, which see to themselves where they are built",
        &[
            "cross_attention_hidden_size",
            "directionality",
            "id2label",
            "label2id",
            "n_special",
            "num_labels",
            "output_attentions",
            "output_hidden_states",
            "output_past",
            "output_scores",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
            "predict_special_tokens",
            "return_dict",
            "return_dict_in_generate",
            "sbert_ce_default_activation_function",
            "sentence_transformers",
            "summary_activation",
            "summary_last_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
            "task_specific_params",
            "tie_last_hidden_states",
            "use_return_dict",
        ],
    ),
    (
        "defaults of generation, which a person gives",
        &[
            "assistant_confidence_threshold",
            "assistant_lookbehind",
            "bad_words_ids",
            "diversity_penalty",
            "do_sample",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "encoder_repetition_penalty",
            "epsilon_cutoff",
            "eta_cutoff",
            "exponential_decay_length_penalty",
            "length_penalty",
            "max_length",
            "min_length",
            "no_repeat_ngram_size",
            "num_assistant_tokens",
            "num_assistant_tokens_schedule",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "remove_invalid_values",
            "repetition_penalty",
            "target_lookbehind",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
        ],
    ),
    (
        "how long texts may be, which max_position_embeddings and the tokenizer say",
        &["max_seq_len", "max_seq_length", "max_sequence_length", "model_max_length", "seq_length"],
    ),
];

/// Fields that change nothing in some families, whatever their value: (families, reason, fields).
const ANY_IN: &[(&[&str], &str, &[&str])] = &[
    (DECODERS, "transformers asks for it in encoders only", &["is_decoder"]),
    (&["gemma2", "gemma3_text", "gemma3"], "these families read hidden_activation in its place", &["hidden_act"]),
    (&["bert"], "the width of embeddings in training", &["emb_size"]),
    (&["qwen3_moe"], "use_sliding_window decides for all layers", &["max_window_layers"]),
    (&["llama", "mistral"], "a note on training that files with YaRN bear in rope_scaling", &["finetuned"]),
];

/// Fields that change nothing as long as they have the given value: (families, field, value as JSON). An empty list of
/// families means all. For example, `mlp_bias: false` may be ignored everywhere, `mlp_bias: true` is an error. A family
/// that reads such a field itself may accept other values.
const AT: &[(&[&str], &str, &str)] = &[
    (&[], "add_cross_attention", "false"),
    (&["falcon"], "apply_residual_connection_post_layernorm", "false"),
    (&[], "attention_bias", "false"),
    (&[], "attention_softmax_in_fp32", "true"),
    (NO_BIAS, "bias", "false"),
    (&[], "full_attn_mod", "1"),
    (&[], "interpolate_factor", "1"),
    (DECODERS, "is_causal", "true"),
    (&[], "is_decoder", "false"),
    (&[], "is_encoder_decoder", "false"),
    (&[], "lm_head_bias", "false"),
    (&[], "mlp_bias", "false"),
    (&[], "mlp_type", "\"default\""),
    (&[], "norm_type", "\"layer_norm\""),
    (&[], "num_nextn_predict_layers", "0"),
    (&[], "pruned_heads", "{}"),
    (NO_BIAS, "qkv_bias", "false"),
    (&[], "rope_interleaved", "false"),
    (&["falcon"], "rotary", "true"),
    (&[], "scale_attention_softmax_in_fp32", "true"),
    (&[], "scale_attn_weights", "true"),
    (&["qwen3_moe", "mixtral"], "shared_expert_intermediate_size", "0"),
    (&[], "tf_legacy_loss", "false"),
    (&[], "tie_encoder_decoder", "false"),
    (&[], "tie_weights_", "true"),
    (&[], "use_bfloat16", "false"),
    (NO_BIAS, "use_bias", "false"),
    (DECODERS, "use_bidirectional_attention", "false"),
    (&[], "use_mrope", "false"),
    (QK_NORM, "use_qk_norm", "true"),
];

/// Explanations for fields that are refused although published files have them: (field, explanation). An explanation
/// says what the field does, and what the model computes if the field is ignored.
const REFUSED: &[(&str, &str)] = &[
    (
        "attn_factor",
        "multiplies attention in other programs; transformers reads attention_factor alone, and leaving it out gives its \
         numbers",
    ),
    (
        "dual_chunk_attention_config",
        "attention in chunks, which is not supported; leaving it out gives the same numbers for texts no longer than its \
         original_max_position_embeddings",
    ),
];

/// Whether the field `name` with the value `value`, which `family` did not read, changes nothing. `name` is the last
/// part of a nested field's name. Fields whose names begin with an underscore always count as harmless: transformers
/// writes them as notes, such as `_name_or_path`.
pub(crate) fn inert(family: &str, name: &str, value: &Value) -> bool {
    let at = |(families, known, at): &(&[&str], &str, &str)| {
        let listed = *known == name && (families.is_empty() || families.contains(&family));
        listed && serde_json::from_str::<Value>(at).is_ok_and(|at| same(&at, value))
    };
    name.starts_with('_')
        || ANY.iter().any(|(_, names)| names.contains(&name))
        || ANY_IN.iter().any(|(families, _, names)| families.contains(&family) && names.contains(&name))
        || AT.iter().any(at)
}

/// The explanation for the field `name`, if [`REFUSED`] has one. Of a nested name, such as `rope_scaling.attn_factor`,
/// the last part is looked up.
pub(crate) fn what(name: &str) -> Option<&'static str> {
    let last = name.rsplit('.').next();
    REFUSED.iter().find(|(known, _)| Some(*known) == last).map(|(_, what)| *what)
}

/// Whether two JSON values are equal. Numbers are compared by value, so that 1 equals 1.0.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::families::FAMILIES;

    /// A value that differs from `value`, of the same JSON type if it is a boolean, a number or a string.
    fn other(value: &Value) -> Value {
        match value {
            Value::Bool(value) => (!value).into(),
            Value::Number(value) => (value.as_f64().unwrap_or(0.0) + 1.0).into(),
            Value::String(value) => format!("{value}_").into(),
            _ => serde_json::json!({"0": [1]}),
        }
    }

    #[test]
    fn a_field_with_a_condition_is_refused_at_any_other_value_and_in_other_families() {
        let any = |family, name| ANY_IN.iter().any(|(in_, _, names)| in_.contains(&family) && names.contains(&name));
        for (families, name, at) in AT {
            let at: Value = serde_json::from_str(at).unwrap();
            for (family, _) in FAMILIES {
                let listed = families.is_empty() || families.contains(family);
                let known = AT.iter().any(|(f, n, _)| n == name && (f.is_empty() || f.contains(family)));
                assert_eq!(inert(family, name, &at), listed || known || any(*family, *name), "{family} {name}");
                assert_eq!(inert(family, name, &other(&at)), any(*family, *name), "{family} {name}");
            }
        }
    }

    #[test]
    fn what_one_family_passes_over_another_reads() {
        let number = Value::from(28);
        assert!(inert("qwen3_moe", "max_window_layers", &number) && !inert("qwen2", "max_window_layers", &number));
        assert!(!inert("qwen3_moe", "use_qk_norm", &false.into()) && !inert("llama", "use_qk_norm", &true.into()));
        assert!(!inert("qwen3_moe", "qkv_bias", &true.into()) && !inert("qwen2", "qkv_bias", &false.into()));
        assert!(same(&1.into(), &1.0.into()) && !same(&1.into(), &true.into()));
    }

    #[test]
    fn every_listed_family_exists() {
        let listed =
            ANY_IN.iter().flat_map(|(families, ..)| *families).chain(AT.iter().flat_map(|(families, ..)| *families));
        for family in listed {
            assert!(FAMILIES.iter().any(|(known, _)| known == family), "{family}");
        }
    }
}
