//! Fields that a config.json leaves out have the defaults of transformers' classes, for every family.
//!
//! `left_out.json` holds the values that those classes give to small configurations in which one field was removed or
//! set to null (`tests/fixtures/defaults.py` asks the classes). The model of the shorter file must equal the model of
//! the file that states every value.

use fanfold::import::Head;
use fanfold::model::Model;
use fanfold::tensor::{DType, Region};
use fanfold::weights::Weights;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;

type Fields = Map<String, Value>;

/// A configuration, and the values that transformers gives to it and to its variants.
#[derive(Deserialize)]
struct Case {
    config: Fields,
    /// The configuration with every field.
    whole: Fields,
    /// By the field that is left out: the values that differ from `whole`, or `None` if transformers refuses the file.
    without: BTreeMap<String, Option<Fields>>,
    /// The same by the field that is null.
    null: BTreeMap<String, Option<Fields>>,
}

/// Cases by family and number.
fn cases() -> BTreeMap<String, BTreeMap<String, Case>> {
    serde_json::from_slice(&fs::read("tests/fixtures/left_out.json").unwrap()).unwrap()
}

/// Everything that decides what a model of `family` computes, as lines of text; or the error of reading it.
fn model(family: &str, config: &Fields) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let mut config = config.clone();
    config.insert("model_type".into(), family.into());
    fs::write(&path, Value::Object(config).to_string()).unwrap();
    let model = Model::random(&path, DType::F16, 0, Head::Default).map_err(|error| error.to_string())?;
    let mut lines = vec![format!("{:?}", model.info()), format!("{:?}", model.graph().outputs())];
    lines.extend(model.graph().nodes().iter().map(|node| format!("{node:?}")));
    for (_, value) in model.graph().values() {
        lines.push(format!("{value:?}"));
        if value.name.starts_with("rope") {
            let pairs = value.shape.last().and_then(|dim| dim.fixed()).unwrap();
            // Of the capacities on which the tables of longrope and dynamic scaling depend, a large and a small one.
            for capacity in [40, 1000] {
                let table = model.read(&value.name, &[capacity, pairs], &Region(vec![1..3, 0..pairs])).unwrap();
                lines.push(format!("{} {:?}", value.name, table.as_f32().unwrap()));
            }
        }
    }
    Ok(lines)
}

/// The difference between two models, or the error that refuses one of them.
fn difference(found: &Result<Vec<String>, String>, expected: &Option<Result<Vec<String>, String>>) -> Option<String> {
    match (found, expected) {
        // A file that transformers refuses must not be accepted. Otherwise it does not matter which of the two refuses
        // it.
        (Err(_), None) => None,
        (Err(found), Some(Err(_))) if found.contains("config.json") => None,
        (Ok(found), Some(Ok(expected))) => {
            let lengths =
                (found.len() != expected.len()).then(|| format!("{} of {} lines", found.len(), expected.len()));
            let line = found.iter().zip(expected).find(|(found, expected)| found != expected);
            line.map(|(found, expected)| format!("found    {found}\n  expected {expected}")).or(lengths)
        }
        (Ok(_), None) => Some("found a model, and transformers refuses it".into()),
        (found, Some(expected)) => {
            Some(format!("found {:?}, expected {:?}", found.as_ref().err(), expected.as_ref().err()))
        }
    }
}

/// `whole` with the values of `changes`.
fn changed(whole: &Fields, changes: &Fields) -> Fields {
    let mut config = whole.clone();
    config.extend(changes.clone());
    config
}

/// `config` with the field at `path` removed or set to null.
fn edited(config: &Fields, path: &str, null: bool) -> Fields {
    let mut config = config.clone();
    let (place, name) = match path.split_once('.') {
        Some((outer, name)) => (config[outer].as_object_mut().unwrap(), name),
        None => (&mut config, path),
    };
    if null {
        place.insert(name.into(), Value::Null);
    } else {
        place.remove(name).unwrap();
    }
    config
}

#[test]
fn a_field_that_is_left_out_is_the_default_of_transformers_class() {
    let mut wrong = Vec::new();
    let mut fields = 0;
    for (family, cases) in cases() {
        for (number, case) in cases {
            let mut check = |what: String, config: &Fields, whole: Option<Fields>| {
                fields += 1;
                let found = model(&family, config);
                let expected = whole.map(|whole| model(&family, &whole));
                if let Some(difference) = difference(&found, &expected) {
                    wrong.push(format!("{family} {number} {what}:\n  {difference}"));
                }
            };
            check("whole".into(), &case.config, Some(case.whole.clone()));
            for (kinds, null) in [(&case.without, false), (&case.null, true)] {
                for (field, changes) in kinds {
                    let what = format!("{} {field}", if null { "null" } else { "without" });
                    let whole = changes.as_ref().map(|changes| changed(&case.whole, changes));
                    check(what, &edited(&case.config, field, null), whole);
                }
            }
        }
    }
    assert!(fields > 500, "{fields}");
    assert!(wrong.is_empty(), "{} of {fields}:\n{}", wrong.len(), wrong.join("\n"));
}

/// A file that contains only its model_type gives the model that transformers has for the family.
#[test]
fn a_file_without_any_field_is_the_default_model_of_its_family() {
    let defaults: BTreeMap<String, Fields> =
        serde_json::from_slice(&fs::read("tests/fixtures/configs.json").unwrap()).unwrap();
    for (family, whole) in defaults {
        let mut bare = Fields::new();
        // The table was generated with these two values.
        for field in ["bos_token_id", "eos_token_id"] {
            bare.insert(field.into(), whole[field].clone());
        }
        let difference = difference(&model(&family, &bare), &Some(model(&family, &whole)));
        assert_eq!(difference, None, "{family}");
    }
}
