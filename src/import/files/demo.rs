//! The demo model. Its files are embedded in the program, so that the first run needs no download.
//!
//! This module deliberately only lists the files; `assets/demo/RECIPE.md` describes the model and how it was trained.
//! Read [`super::folder`] next: an embedded folder is read and checked like a folder on disk.

use crate::import::ImportError;
use crate::import::files::folder::Folder;

/// The folder of the demo model: a Llama of 2.6 M parameters that writes in the style of Shakespeare.
#[doc(hidden)]
pub fn demo() -> Result<Folder, ImportError> {
    Folder::embedded(&[
        ("config.json", include_bytes!("../../../assets/demo/config.json")),
        ("generation_config.json", include_bytes!("../../../assets/demo/generation_config.json")),
        ("model.safetensors", include_bytes!("../../../assets/demo/model.safetensors")),
        ("tokenizer.json", include_bytes!("../../../assets/demo/tokenizer.json")),
    ])
}
