//! The default values of the fields of config.json, per model family, as transformers' configuration classes have them.
//!
//! Published files leave out fields that equal the default of their class: Gemma 3 4B, for example, states neither its
//! number of heads nor its vocabulary size. `tests/fixtures/defaults.py` generates the table from transformers. It
//! deliberately holds constants only: where a class computes a value from other fields, such as head_dim, the family's
//! file in `families/` computes it. Read `config.rs` next, which looks up the defaults.

use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One field of a configuration class.
#[derive(Debug, Deserialize)]
pub(crate) struct FieldDefault {
    /// The value of the field where a file leaves it out. `null` if the class has no default or computes one.
    #[serde(rename = "default")]
    pub(crate) value: Value,
    /// Whether the file may say `null` for this field. transformers refuses a `null` in other fields.
    #[serde(default)]
    pub(crate) nullable: bool,
}

type Table = HashMap<String, HashMap<String, FieldDefault>>;

/// The defaults by `model_type` and field name. If defaults.json did not parse, the table would be empty and the test
/// below would fail.
static TABLE: LazyLock<Table> =
    LazyLock::new(|| serde_json::from_str(include_str!("defaults.json")).unwrap_or_default());

/// The default of the field `name` in `family`'s configuration class. `None` where the class has no such field.
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
