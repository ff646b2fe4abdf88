//! The default values that each family's configuration class in transformers has for fields that a config.json leaves
//! out.
//!
//! Published files leave out fields that equal the default of their class: Gemma 3 4B, for example, states neither its
//! heads nor its vocabulary. The table is generated from transformers by `tests/fixtures/defaults.py` and deliberately
//! holds plain values only: a value that a class computes from other fields, such as head_dim, is computed by the
//! family's file here. Read `config.rs` for who looks up a default.

use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One field of a configuration class.
#[derive(Debug, Deserialize)]
pub(crate) struct FieldDefault {
    /// The value of a field that is left out. `null` means that the class has no value for it or computes one.
    #[serde(rename = "default")]
    pub(crate) value: Value,
    /// Whether a file may say `null` here. For other fields transformers refuses it.
    #[serde(default)]
    pub(crate) nullable: bool,
}

type Table = HashMap<String, HashMap<String, FieldDefault>>;

/// The fields by `model_type` and name. A test reads the table, so it cannot be empty.
static TABLE: LazyLock<Table> =
    LazyLock::new(|| serde_json::from_str(include_str!("defaults.json")).unwrap_or_default());

/// The field called `name` of the class of `family`. `None` where the class has no such field.
pub(crate) fn find(family: &str, name: &str) -> Option<&'static FieldDefault> {
    TABLE.get(family)?.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::families::FAMILIES;

    #[test]
    fn every_family_has_its_class() {
        for (family, _) in FAMILIES {
            assert!(find(family, "tie_word_embeddings").is_some(), "{family}");
        }
        assert_eq!(find("gemma3_text", "vocab_size").unwrap().value, 262_208);
        assert!(find("mistral", "sliding_window").unwrap().nullable);
        assert!(!find("mistral", "hidden_size").unwrap().nullable);
    }
}
