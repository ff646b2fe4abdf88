//! The errors of finding, opening and using a device.
//!
//! It deliberately knows no rank. Read [`super::Device`] for the functions that return them.

use crate::message::list;
use crate::ops::OpError;
use crate::tensor::TensorError;
use crate::weights::SourceError;
use bytesize::ByteSize;
use std::time::Duration;

/// An error of a device, or of finding one.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No GPU adapter was found.
    #[error(
        "no GPU adapter found. Install a driver (Debian, Ubuntu: `apt-get install mesa-vulkan-drivers libvulkan1` also brings a software one), or compute on the host"
    )]
    NoAdapter,
    /// An entry of a list of devices matches no device.
    #[error("device {wanted:?} matches no adapter; there are:{}", list(present))]
    NotFound {
        /// The entry.
        wanted: String,
        /// The devices that were found.
        present: Vec<String>,
    },
    /// A list of devices cannot be parsed.
    #[error("device list {list:?}: {reason}")]
    List {
        /// The list as it was given.
        list: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The device was lost.
    #[error("device {device} was lost: {reason}")]
    Lost {
        /// The device's name.
        device: String,
        /// The driver's message.
        reason: String,
    },
    /// The device could not allocate memory.
    #[error(
        "device {device} has no room for {what}{}: {reason}",
        if *bytes > 0 { format!(" of {}", ByteSize::b(*bytes)) } else { String::new() }
    )]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// The buffer or weight that was to be allocated.
        what: String,
        /// Its size in bytes; 0 when unknown.
        bytes: u64,
        /// The driver's message, or the limit that it exceeds.
        reason: String,
    },
    /// The device made no progress for as long as the deadline.
    #[error("device {device} made no progress within {deadline:?}")]
    Deadline {
        /// The device's name.
        device: String,
        /// The deadline of the wait.
        deadline: Duration,
    },
    /// The driver or wgpu's validation refused a shader or a call.
    #[error("device {device}: {reason}")]
    Refused {
        /// The device's name.
        device: String,
        /// The message of the driver or of the validation.
        reason: String,
    },
    /// A node's op cannot run on the device.
    #[error("node {node}: {cause}")]
    Node {
        /// The node's name.
        node: String,
        /// The error of the op.
        cause: Box<DeviceError>,
    },
    /// Evaluating an op on the host failed.
    #[error("{0}")]
    Op(OpError),
    /// A tensor has the wrong dtype or shape.
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
