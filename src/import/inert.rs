//! The fields of a configuration that change nothing of what a model computes, by reason.
//!
//! Whatever a family did not read and is not here is an error that lists it: a setting that is passed over would make a
//! model that runs and is wrong. The list deliberately holds what transformers writes for every model, and what well
//! known files add to it; what belongs to one family is read there. Read `config.rs` for who asks.

use serde_json::Value;

/// Fields that may have any value.
const ANY: &[(&str, &[&str])] = &[
    (
        "where the file is from",
        &[
            "architectures",
            "auto_map",
            "custom_pipelines",
            "dtype",
            "finetuning_task",
            "is_llama_config",
            "model_type",
            "name_or_path",
            "tokenizer_class",
            "torch_dtype",
            "transformers.js_config",
            "transformers_version",
            "unsloth_fixed",
            "unsloth_version",
        ],
    ),
    (
        "training",
        &[
            "attention_dropout",
            "attention_probs_dropout_prob",
            "attn_pdrop",
            "classifier_dropout",
            "classifier_dropout_prob",
            "dropout",
            "embd_pdrop",
            "embedding_dropout",
            "ffn_dropout",
            "gradient_checkpointing",
            "hidden_dropout",
            "hidden_dropout_prob",
            "init_std",
            "initializer_factor",
            "initializer_range",
            "label_smoothing",
            "layerdrop",
            "output_router_logits",
            "problem_type",
            "qa_dropout",
            "resid_pdrop",
            "residual_dropout",
            "router_aux_loss_coef",
            "router_z_loss_coef",
            "seq_classif_dropout",
            "summary_first_dropout",
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
            "use_flash_attention_2",
        ],
    ),
    (
        "special tokens, which the tokenizer and the generation see to",
        &[
            "begin_suppress_tokens",
            "bos_token_id",
            "cls_token_id",
            "decoder_start_token_id",
            "eos_token_id",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "mask_token_id",
            "pad_token_id",
            "prefix",
            "sep_token_id",
            "suppress_tokens",
            "unk_token_id",
        ],
    ),
    (
        "what a call returns, and heads, which see to themselves where they are built",
        &[
            "id2label",
            "label2id",
            "directionality",
            "num_labels",
            "output_attentions",
            "output_hidden_states",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
            "return_dict",
            "return_dict_in_generate",
            "output_scores",
            "sbert_ce_default_activation_function",
            "sentence_transformers",
            "summary_activation",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
            "task_specific_params",
            "use_return_dict",
        ],
    ),
    (
        "defaults of generation, which a person gives",
        &[
            "bad_words_ids",
            "diversity_penalty",
            "do_sample",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "exponential_decay_length_penalty",
            "length_penalty",
            "max_length",
            "min_length",
            "no_repeat_ngram_size",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "remove_invalid_values",
            "repetition_penalty",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
        ],
    ),
];

/// Fields that change nothing while they have this value, written as JSON. Where a family reads one, it is the
/// family's.
const AT: &[(&str, &str)] = &[
    ("add_cross_attention", "false"),
    ("attention_bias", "false"),
    ("attention_softmax_in_fp32", "true"),
    ("full_attn_mod", "1"),
    ("interpolate_factor", "1"),
    ("is_decoder", "false"),
    ("is_encoder_decoder", "false"),
    ("lm_head_bias", "false"),
    ("mlp_bias", "false"),
    ("mlp_type", "\"default\""),
    ("norm_type", "\"layer_norm\""),
    ("pruned_heads", "{}"),
    ("rope_interleaved", "false"),
    ("scale_attention_softmax_in_fp32", "true"),
    ("scale_attn_weights", "true"),
    ("tf_legacy_loss", "false"),
    ("tie_encoder_decoder", "false"),
    ("tie_weights_", "true"),
    ("use_bfloat16", "false"),
    ("use_mrope", "false"),
];

/// Whether a field that no family read may be passed over. Names with a leading underscore are transformers' own notes.
pub(super) fn inert(name: &str, value: &Value) -> bool {
    name.starts_with('_')
        || ANY.iter().any(|(_, names)| names.contains(&name))
        || AT.iter().any(|(n, at)| *n == name && serde_json::from_str::<Value>(at).is_ok_and(|at| at == *value))
}
