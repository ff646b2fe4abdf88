//! The way out of an error, in the words of the command line: which option or command helps.
//!
//! The library's errors say what is wrong and what would help in general terms, such as a smaller context, because their reader
//! may have no command line. This file is the only one that says which option that is. It deliberately repeats nothing that
//! the error says. Read `exit.rs` for where advice is printed.

use fanfold::Error;
use fanfold::device::DeviceError;
use fanfold::generate::GenerateError;
use fanfold::hub::HubError;
use fanfold::import::ImportError;
use fanfold::plan::PlanError;
use fanfold::program::ProgramError;
use fanfold::session::SessionError;
use fanfold::text::TextError;

/// The advice for `error`, on one line. `None` where no option helps.
pub fn advice(error: &Error) -> Option<String> {
    Some(match error {
        Error::Import(ImportError::NotUnderstood { names, .. }) => format!("--ignore-config {names} ignores them"),
        Error::Import(ImportError::Unsupported { what: "architecture", .. }) => {
            "--ignore-config architectures goes by model_type alone".to_string()
        }
        Error::Hub(HubError::NotCached { id, .. }) => format!("`fanfold pull {id}` fetches it"),
        Error::Hub(HubError::Denied { .. }) => "HF_TOKEN, or the file that a login leaves, holds a token".to_string(),
        Error::Hub(HubError::Disk { .. }) => "HF_HOME or HF_HUB_CACHE names another cache".to_string(),
        Error::Plan(PlanError::Model { .. }) => "`fanfold plan -o FILE` makes a plan".to_string(),
        Error::Plan(PlanError::Node { cause, .. }) => return advice(&(**cause).clone().into()),
        Error::Plan(PlanError::Inexact(_)) => "--strategy column makes a plan for --exact".to_string(),
        Error::Program(ProgramError::DoesNotFit { .. }) => {
            "--devices and --ratios divide the model, -c sets the context; where a device has more memory than this, say so \
             with --memory"
                .to_string()
        }
        Error::Program(ProgramError::TooWide { .. }) => {
            "-c sets the context, --batch how many texts go at once (or give fewer -p); --devices, --ratios, --strategy and \
             --plan say how the model is cut"
                .to_string()
        }
        Error::Program(ProgramError::Node { cause, .. }) => return advice(&(**cause).clone().into()),
        Error::Device(DeviceError::NoAdapter) => "`--devices host` computes on the host".to_string(),
        Error::Device(DeviceError::OutOfMemory { .. }) => {
            "--devices takes more devices, -c sets the context".to_string()
        }
        Error::Device(DeviceError::Node { cause, .. }) => return advice(&(**cause).clone().into()),
        Error::Session(SessionError::Rank { cause, .. }) => return advice(&(**cause).clone().into()),
        // Where the model was made for no more positions, a larger context is no way out.
        Error::Generate(GenerateError::Context { tokens, limit: Some(limit), .. }) if tokens <= limit => {
            "-c sets the context".to_string()
        }
        Error::Generate(GenerateError::NotFinite { .. }) => "--check looks for such weights".to_string(),
        Error::Text(TextError::NoTemplate { .. }) => {
            "--template FILE gives one; `fanfold run` without --chat continues texts".to_string()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_within_an_error_is_what_advice_is_for() {
        let full = |reason: &str| DeviceError::OutOfMemory {
            device: "one".into(),
            what: "weights".into(),
            bytes: 7,
            reason: reason.into(),
        };
        let node = DeviceError::Node { node: "lm_head".into(), cause: Box::new(full("full")) };
        let cause = Box::new(SessionError::from(node));
        let error = SessionError::Rank { rank: 0, device: "one".into(), node: None, cause };
        assert!(advice(&error.into()).unwrap().contains("-c"));
        let inexact = PlanError::Node { node: "a".into(), cause: Box::new(PlanError::Inexact("b".into())) };
        assert!(advice(&inexact.into()).unwrap().contains("--strategy column"));
    }

    #[test]
    fn a_context_is_not_to_be_raised_beyond_what_the_model_was_made_for() {
        let context = |limit| advice(&GenerateError::Context { tokens: 20, capacity: 8, limit }.into());
        assert!(context(Some(20)).unwrap().contains("-c"));
        assert_eq!((context(Some(19)), context(None)), (None, None));
    }
}
