//! The demo model, which is part of the program so that the first run needs no download.
//!
//! This module deliberately knows nothing of what the model is; `assets/demo/RECIPE.md` tells how it was made.
//! Read [`super::folder`] next: an embedded folder is read and checked like any other.

use crate::import::ImportError;
use crate::import::files::folder::Folder;

/// The embedded folder: a Llama of 2.6 M parameters that writes in the manner of Shakespeare.
#[doc(hidden)]
pub fn demo() -> Result<Folder, ImportError> {
    Folder::embedded(&[
        ("config.json", include_bytes!("../../../assets/demo/config.json")),
        ("generation_config.json", include_bytes!("../../../assets/demo/generation_config.json")),
        ("model.safetensors", include_bytes!("../../../assets/demo/model.safetensors")),
        ("tokenizer.json", include_bytes!("../../../assets/demo/tokenizer.json")),
    ])
}
