//! One [`Error`] for callers that do not care which layer failed: a union of the layers' own errors.
//!
//! Each layer's error stands beside the layer and says what a person needs to act; this file knows no message. An error
//! that wraps another prints it and has no `source()`, so that whoever prints a chain of causes prints nothing twice.

use crate::import::ImportError;
use crate::message::shown;
use crate::weights::SourceError;
use std::fmt;

/// The result of whatever may fail in more than one layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `Error`, its text, and the conversions: a layer's error that only passes on a lower layer's becomes that one.
macro_rules! layers {
    (@rest $error:ident, $own:path) => { $own($error) };
    (@rest $error:ident, $own:path, $rest:path) => { $rest($error) };
    ($($layer:ident($room:ident::$error:ident) $(passes $($lower:ident),+)? $(else $rest:path)?: $says:literal;)*) => {
        /// What can go wrong, by layer. Text from outside is shown as [`shown`] says.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub enum Error {
            $(#[doc = $says] $layer(crate::$room::$error),)*
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Error::$layer(error) => f.write_str(&shown(&error.to_string())),)*
                }
            }
        }

        $(impl From<crate::$room::$error> for Error {
            fn from(error: crate::$room::$error) -> Error {
                match error {
                    $($(crate::$room::$error::$lower(cause) => cause.into(),)+)?
                    error => layers!(@rest error, Error::$layer $(, $rest)?),
                }
            }
        })*
    };
}

layers! {
    Tensor(tensor::TensorError): "A tensor in host memory.";
    Sharding(sharding::ShardingError): "A sharding rule, a cut or ratios.";
    Op(ops::OpError) passes Tensor, Sharding: "An op.";
    Graph(graph::GraphError) passes Op: "A graph of ops.";
    Source(weights::SourceError) passes Tensor else of_source: "Weights or files of a model that are not read from a folder.";
    Import(import::ImportError) passes Graph, Data: "A model folder.";
    Hub(hub::HubError) passes Import: "A model's name, the cache, or a hub that models come from.";
    Plan(plan::PlanError) passes Sharding: "A plan.";
    Program(program::ProgramError) passes Plan, Op, Sharding: "A program: a plan's lowering, or its memory.";
    Device(device::DeviceError) passes Op, Tensor, Source: "A device.";
    Comm(comm::CommError): "An exchange between ranks.";
    Session(session::SessionError) passes Device, Comm, Tensor: "A session.";
    Text(text::TextError) passes Source: "Text: tokenizers, templates, the choice of tokens.";
    Generate(generate::GenerateError) passes Program, Session, Text, Tensor: "Tokens through an engine.";
}

/// A source's error: a folder's, where the source is one, stays what it is.
fn of_source(error: SourceError) -> Error {
    match &error {
        SourceError::Other(cause) => match cause.downcast_ref::<ImportError>() {
            Some(cause) => cause.clone().into(),
            None => Error::Source(error),
        },
        _ => Error::Source(error),
    }
}

impl std::error::Error for Error {}
