//! One [`Error`] for callers that do not care which layer failed: a union of the layers' own errors.
//!
//! Each layer's error type is defined beside the layer, with its messages; this file deliberately has none. An error
//! that wraps another prints it as part of its own message and has no `source()`, so that printing the chain of
//! causes prints nothing twice.

use crate::import::ImportError;
use crate::message::shown;
use crate::weights::SourceError;
use std::fmt;

/// The result of functions that may fail in more than one layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Defines `Error`, its text, and the conversions into it. A layer's error that only wraps a lower layer's error
/// becomes the variant of the lower layer.
macro_rules! layers {
    (@rest $error:ident, $own:path) => { $own($error) };
    (@rest $error:ident, $own:path, $rest:path) => { $rest($error) };
    ($($layer:ident($room:ident::$error:ident) $(passes $($lower:ident),+)? $(else $rest:path)?: $says:literal;)*) => {
        /// Any error of this library, by the layer that it comes from. Untrusted text in it is escaped by [`shown`].
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

/// Converts the error of a weight source. If it wraps an error of importing a folder, that one is returned.
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
