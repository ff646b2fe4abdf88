//! The model that is raced: a Llama of random weights, written as a folder that fanfold and candle read, and as a GGUF file for
//! llama.cpp.
//!
//! Both hold the same numbers: f16 matrices, and norms of ones. It deliberately runs nothing. Read `engines/` for who does.

use anyhow::{Result, bail};
use fanfold::random::Random;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The sizes of a Llama.
#[derive(Clone, Copy)]
pub struct Sizes {
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    pub vocabulary: usize,
}

/// Positions that the model is made for.
const CONTEXT: usize = 2048;

impl Sizes {
    pub fn named(name: &str) -> Result<Sizes> {
        Ok(match name {
            "tiny" => Sizes { hidden: 256, inner: 704, layers: 2, heads: 4, kv_heads: 2, vocabulary: 1000 },
            "half" => Sizes { hidden: 2048, inner: 5632, layers: 8, heads: 32, kv_heads: 8, vocabulary: 32_000 },
            _ => bail!("--size {name}: tiny or half"),
        })
    }

    /// The tensors in Hugging Face's names, each with its rows and columns; a vector has one column of 0.
    fn tensors(&self) -> Vec<(String, usize, usize)> {
        let Sizes { hidden, inner, vocabulary, .. } = *self;
        let kv = hidden / self.heads * self.kv_heads;
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_string(), vocabulary, hidden),
            ("lm_head.weight".to_string(), vocabulary, hidden),
            ("model.norm.weight".to_string(), hidden, 0),
        ];
        for layer in 0..self.layers {
            let mut add = |part: &str, rows: usize, columns: usize| {
                tensors.push((format!("model.layers.{layer}.{part}.weight"), rows, columns));
            };
            add("input_layernorm", hidden, 0);
            add("self_attn.q_proj", hidden, hidden);
            add("self_attn.k_proj", kv, hidden);
            add("self_attn.v_proj", kv, hidden);
            add("self_attn.o_proj", hidden, hidden);
            add("post_attention_layernorm", hidden, 0);
            add("mlp.gate_proj", inner, hidden);
            add("mlp.up_proj", inner, hidden);
            add("mlp.down_proj", hidden, inner);
        }
        tensors
    }
}

/// The GGUF file of the model in `folder`.
pub fn gguf(folder: &Path) -> PathBuf {
    folder.join("model.gguf")
}

/// Writes the model into `folder`.
pub fn write(folder: &Path, sizes: Sizes) -> Result<()> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": "float16",
        "hidden_size": sizes.hidden, "intermediate_size": sizes.inner, "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads, "vocab_size": sizes.vocabulary,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let tensors = sizes.tensors();
    write_safetensors(&folder.join("model.safetensors"), &tensors)?;
    write_gguf(&gguf(folder), &tensors, sizes)
}

/// The elements of a tensor as f16: ones for a norm, and otherwise random numbers of a standard deviation that keeps the
/// magnitude of what a layer passes on.
fn elements(number: usize, rows: usize, columns: usize) -> Vec<u16> {
    if columns == 0 {
        return vec![half(1.0); rows];
    }
    let mut random = Random::new(number as u64 + 1);
    let width = (3.0 / columns as f64).sqrt();
    (0..rows * columns).map(|_| half((2.0 * random.fraction() - 1.0) * width)).collect()
}

/// A number of magnitude up to 2 rounded to f16.
fn half(value: f64) -> u16 {
    half::f16::from_f64(value).to_bits()
}

fn bytes(elements: &[u16]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

fn write_safetensors(path: &Path, tensors: &[(String, usize, usize)]) -> Result<()> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, rows, columns) in tensors {
        let start = end;
        end += 2 * rows * columns.max(&1);
        let shape = if *columns == 0 { vec![*rows] } else { vec![*rows, *columns] };
        header.insert(name.clone(), json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for (number, (_, rows, columns)) in tensors.iter().enumerate() {
        file.write_all(&bytes(&elements(number, *rows, *columns)))?;
    }
    Ok(file.flush()?)
}

/// llama.cpp's name of a tensor.
fn gguf_name(name: &str) -> String {
    let name = match name {
        "model.embed_tokens.weight" => return "token_embd.weight".to_string(),
        "lm_head.weight" => return "output.weight".to_string(),
        "model.norm.weight" => return "output_norm.weight".to_string(),
        other => other.replace("model.layers.", "blk."),
    };
    [
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name, |name, (theirs, ours)| name.replace(theirs, ours))
}

/// The order of rows in which llama.cpp's kernels rotate pairs: neighbours, where Hugging Face rotates the two halves of a head.
fn interleaved(elements: &[u16], heads: usize, rows: usize, columns: usize) -> Vec<u16> {
    let dims = rows / heads;
    let from = |row: usize| row / dims * dims + row % dims / 2 + row % 2 * dims / 2;
    (0..rows).flat_map(|row| &elements[from(row) * columns..][..columns]).copied().collect()
}

/// Data in a GGUF file begins at multiples of this many bytes.
const ALIGNMENT: usize = 32;

fn write_gguf(path: &Path, tensors: &[(String, usize, usize)], sizes: Sizes) -> Result<()> {
    let mut head: Vec<u8> = b"GGUF".to_vec();
    let text = |head: &mut Vec<u8>, text: &str| {
        head.extend((text.len() as u64).to_le_bytes());
        head.extend(text.as_bytes());
    };
    let numbers = [
        ("llama.context_length", CONTEXT),
        ("llama.embedding_length", sizes.hidden),
        ("llama.block_count", sizes.layers),
        ("llama.feed_forward_length", sizes.inner),
        ("llama.attention.head_count", sizes.heads),
        ("llama.attention.head_count_kv", sizes.kv_heads),
        ("llama.rope.dimension_count", sizes.hidden / sizes.heads),
        ("llama.vocab_size", sizes.vocabulary),
        ("general.file_type", 1),
    ];
    let floats = [("llama.attention.layer_norm_rms_epsilon", 1e-5f32), ("llama.rope.freq_base", 10_000.0)];
    // A model without a vocabulary: tokens are given as numbers.
    let texts = [("general.architecture", "llama"), ("general.name", "race"), ("tokenizer.ggml.model", "no_vocab")];
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend(((numbers.len() + floats.len() + texts.len()) as u64).to_le_bytes());
    // 8, 4 and 6 are the format's numbers of the types text, u32 and f32.
    for (key, value) in texts {
        text(&mut head, key);
        head.extend(8u32.to_le_bytes());
        text(&mut head, value);
    }
    for (key, value) in numbers {
        text(&mut head, key);
        head.extend(4u32.to_le_bytes());
        head.extend((value as u32).to_le_bytes());
    }
    for (key, value) in floats {
        text(&mut head, key);
        head.extend(6u32.to_le_bytes());
        head.extend(value.to_le_bytes());
    }
    let mut offset = 0usize;
    for (name, rows, columns) in tensors {
        text(&mut head, &gguf_name(name));
        // Norms are f32, type 0, as llama.cpp expects them; matrices f16, type 1. The innermost length comes first.
        let (lengths, ty, size) =
            if *columns == 0 { (vec![*rows], 0u32, 4 * rows) } else { (vec![*columns, *rows], 1, 2 * rows * columns) };
        head.extend((lengths.len() as u32).to_le_bytes());
        lengths.iter().for_each(|&length| head.extend((length as u64).to_le_bytes()));
        head.extend(ty.to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        offset += size.next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&head)?;
    for (number, (name, rows, columns)) in tensors.iter().enumerate() {
        let elements = elements(number, *rows, *columns);
        let mut data = match (name.as_str(), columns) {
            (_, 0) => elements.iter().flat_map(|_| 1f32.to_le_bytes()).collect(),
            (name, _) if name.contains("q_proj") => bytes(&interleaved(&elements, sizes.heads, *rows, *columns)),
            (name, _) if name.contains("k_proj") => bytes(&interleaved(&elements, sizes.kv_heads, *rows, *columns)),
            _ => bytes(&elements),
        };
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        file.write_all(&data)?;
    }
    Ok(file.flush()?)
}
