//! What can go wrong on a device.
//!
//! It deliberately knows no rank. Read [`super::Device`] for who returns these.

use crate::message::list;
use crate::ops::OpError;
use crate::tensor::TensorError;
use crate::weights::SourceError;
use bytesize::ByteSize;
use std::time::Duration;

/// A device.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No adapter at all.
    #[error(
        "no GPU adapter found. Install a driver (Debian, Ubuntu: `apt-get install mesa-vulkan-drivers libvulkan1` also brings a software one), or compute on the host"
    )]
    NoAdapter,
    /// A device in the list matches nothing.
    #[error("device {wanted:?} matches no adapter; there are:{}", list(present))]
    NotFound {
        /// The word given.
        wanted: String,
        /// What there is.
        present: Vec<String>,
    },
    /// The list of devices cannot be read.
    #[error("device list {list:?}: {reason}")]
    List {
        /// The list.
        list: String,
        /// What is wrong.
        reason: String,
    },
    /// The device was lost.
    #[error("device {device} was lost: {reason}")]
    Lost {
        /// The device.
        device: String,
        /// The driver's words.
        reason: String,
    },
    /// The device refused memory.
    #[error(
        "device {device} has no room for {what}{}: {reason}",
        if *bytes > 0 { format!(" of {}", ByteSize::b(*bytes)) } else { String::new() }
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// What was to be allocated.
        what: String,
        /// Its size.
        bytes: u64,
        /// The driver's words or the limit.
        reason: String,
    },
    /// The device did not finish in time.
    #[error("device {device} made no progress within {deadline:?}")]
    Deadline {
        /// The device.
        device: String,
        /// The deadline.
        deadline: Duration,
    },
    /// A shader or a call was refused.
    #[error("device {device}: {reason}")]
    Refused {
        /// The device.
        device: String,
        /// The driver's or the validator's words.
        reason: String,
    },
    /// An op cannot run on the device.
    #[error("node {node}: {cause}")]
    Node {
        /// The node.
        node: String,
        /// Why.
        cause: Box<DeviceError>,
    },
    /// The evaluation of an op failed.
    #[error("{0}")]
    Op(OpError),
    /// A tensor is not what it should be.
    #[error("{0}")]
    Tensor(TensorError),
    /// A weight cannot be read.
    #[error("{0}")]
    Source(SourceError),
}

impl From<OpError> for DeviceError {
    fn from(error: OpError) -> DeviceError {
        DeviceError::Op(error)
    }
}

impl From<TensorError> for DeviceError {
    fn from(error: TensorError) -> DeviceError {
        DeviceError::Tensor(error)
    }
}

impl From<SourceError> for DeviceError {
    fn from(error: SourceError) -> DeviceError {
        match error {
            SourceError::Tensor(cause) => DeviceError::Tensor(cause),
            error => DeviceError::Source(error),
        }
    }
}
