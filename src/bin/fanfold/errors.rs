//! Which of the library's errors an `anyhow::Error` carries, whichever layer returned it.
//!
//! It deliberately knows no exit code and no advice. Read `exit.rs` and `advice.rs` for those.

use fanfold::Error;
use fanfold::comm::CommError;
use fanfold::device::DeviceError;
use fanfold::generate::GenerateError;
use fanfold::graph::GraphError;
use fanfold::hub::HubError;
use fanfold::import::ImportError;
use fanfold::ops::OpError;
use fanfold::plan::PlanError;
use fanfold::program::ProgramError;
use fanfold::session::SessionError;
use fanfold::sharding::ShardingError;
use fanfold::tensor::TensorError;
use fanfold::text::TextError;
use fanfold::weights::SourceError;

/// The library's error that `error` carries, whichever layer's it is. `None` where it carries none.
pub fn library_error(error: &anyhow::Error) -> Option<Error> {
    // The first type of the list that `error` carries, as the union of all.
    macro_rules! of {
        ($($layer:ty),* $(,)?) => {
            None$(.or_else(|| error.downcast_ref::<$layer>().map(|error| Error::from(error.clone()))))*
        };
    }
    of![
        Error,
        TensorError,
        ShardingError,
        OpError,
        GraphError,
        SourceError,
        ImportError,
        HubError,
        PlanError,
        ProgramError,
        DeviceError,
        CommError,
        SessionError,
        TextError,
        GenerateError,
    ]
}
