//! The tensors of a model, read through strided views: exactly the elements asked for, straight from the mapped file.
//!
//! This module deliberately knows nothing of what a tensor is for, nor of ranks: a shard is a [`View`] like any other.
//! Read `random.rs` for tensors that no file holds, and `crate::graph` for the weights that these views become.

use crate::import::ImportError;
use crate::import::files::folder::Folder;
use crate::import::files::safetensors::{Entry, File, SUPPORTED};
use crate::shape::{checked_numel, display_shape};
use crate::tensor::TensorError;
use crate::tensor::{DType, Region, Tensor};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The side of the square blocks in which a transposed view is copied, so that each cache line fetched is used
/// completely.
const TILE: usize = 32;

/// One tensor of a [`FileTensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(hidden)]
pub struct TensorId(pub(crate) usize);

/// Where the elements of one graph weight are: a strided view of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct View {
    /// The tensor.
    pub tensor: TensorId,
    /// The index in the tensor of the view's first element.
    pub offset: usize,
    /// The dimensions of the view, outermost first.
    pub shape: Vec<usize>,
    /// For each dimension, how many elements of the tensor separate neighbours.
    pub strides: Vec<usize>,
}

impl View {
    /// The view of a whole tensor of `shape`.
    pub fn whole(tensor: TensorId, shape: &[usize]) -> View {
        let mut strides = vec![1usize; shape.len()];
        for d in (1..shape.len()).rev() {
            // It saturates only for shapes that no tensor in a file has; reading such a view is refused.
            strides[d - 1] = strides[d].saturating_mul(shape[d].max(1));
        }
        View { tensor, offset: 0, shape: shape.to_vec(), strides }
    }

    /// The range `range` of dimension `dim`. Errors when the view has no such range.
    pub fn slice(&self, dim: usize, range: Range<usize>) -> Result<View, ImportError> {
        let mut region = Region::whole(&self.shape);
        *region.0.get_mut(dim).ok_or_else(|| self.no_dimension(dim))? = range;
        self.region(&region)
    }

    /// The view with two dimensions swapped. Errors when it has no such dimension.
    pub fn transpose(&self, a: usize, b: usize) -> Result<View, ImportError> {
        if let Some(&dim) = [a, b].iter().find(|d| **d >= self.shape.len()) {
            return Err(self.no_dimension(dim).into());
        }
        let mut view = self.clone();
        view.shape.swap(a, b);
        view.strides.swap(a, b);
        Ok(view)
    }

    /// The same elements with a first dimension of length 1 in front, to be an element of a stack.
    pub fn stacked(&self) -> View {
        let mut view = self.clone();
        view.shape.insert(0, 1);
        view.strides.insert(0, 0);
        view
    }

    /// The region `region` of the view, such as a rank's shard. Errors when it leaves the view.
    pub fn region(&self, region: &Region) -> Result<View, ImportError> {
        let inside = region.0.len() == self.shape.len()
            && region.0.iter().zip(&self.shape).all(|(r, &n)| r.start <= r.end && r.end <= n);
        if !inside {
            return Err(TensorError::Region { shape: self.shape.clone(), region: region.clone() }.into());
        }
        let start = |(r, &stride): (&Range<usize>, &usize)| r.start.saturating_mul(stride);
        let offset = region.0.iter().zip(&self.strides).map(start).fold(self.offset, usize::saturating_add);
        Ok(View { tensor: self.tensor, offset, shape: region.shape(), strides: self.strides.clone() })
    }

    /// The number of elements. Saturates for a view too large to exist.
    pub fn numel(&self) -> usize {
        if self.shape.contains(&0) { 0 } else { checked_numel(&self.shape).unwrap_or(usize::MAX) }
    }

    /// The index in the tensor of the view's element `at`, counted row-major.
    pub(crate) fn element(&self, mut at: usize) -> usize {
        let mut element = self.offset;
        for (&n, &stride) in self.shape.iter().zip(&self.strides).rev() {
            element += at % n.max(1) * stride;
            at /= n.max(1);
        }
        element
    }

    /// The number of elements, if they are all inside a tensor of `available` elements.
    ///
    /// `None` for a view that leaves the tensor, and for one that has more elements than the tensor because it repeats
    /// some: no weight does.
    pub(crate) fn numel_within(&self, available: usize) -> Option<usize> {
        let numel = checked_numel(&self.shape).filter(|n| *n <= available)?;
        (numel == 0 || self.end().is_some_and(|end| end <= available)).then_some(numel)
    }

    fn no_dimension(&self, dim: usize) -> TensorError {
        TensorError::Dimension { shape: self.shape.clone(), dim }
    }

    /// The index in the tensor one past the view's last element. `None` when that overflows or the view is
    /// inconsistent.
    fn end(&self) -> Option<usize> {
        if self.shape.len() != self.strides.len() {
            return None;
        }
        let last = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |at, (&n, &stride)| at.checked_add(n.checked_sub(1)?.checked_mul(stride)?))?;
        last.checked_add(1)
    }
}

/// The tensors that a model's weights are views of.
///
/// All methods but `find` error when an id belongs to another model.
#[doc(hidden)]
pub trait Tensors: Send + Sync {
    /// The tensor called `name`.
    fn find(&self, name: &str) -> Option<TensorId>;

    /// The tensor called `name`, which the caller needs in `shape`: a random tensor is created with that shape, one in
    /// a file keeps its own.
    ///
    /// Errors when no random tensor of that shape can be made.
    fn wanted(&mut self, name: &str, shape: &[usize]) -> Result<Option<TensorId>, ImportError>;

    /// The tensor's name.
    fn name(&self, id: TensorId) -> Result<&str, ImportError>;

    /// The tensor's shape.
    fn shape(&self, id: TensorId) -> Result<&[usize], ImportError>;

    /// The file that holds the tensor; for a random tensor the configuration that it follows from.
    fn file(&self, id: TensorId) -> Result<&Path, ImportError>;

    /// The type of the tensor's elements. Errors when it is one that no weight may have.
    fn dtype(&self, id: TensorId) -> Result<DType, ImportError>;

    /// The whole tensor as a view.
    fn view(&self, id: TensorId) -> Result<View, ImportError> {
        Ok(View::whole(id, self.shape(id)?))
    }

    /// Exactly the elements of `view`, row-major, in the tensor's type.
    ///
    /// Errors when the view leaves its tensor, before anything is allocated.
    fn read(&self, view: &View) -> Result<Tensor, ImportError>;

    /// Whether there is no tensor called `name` and none can be made.
    fn lacks(&self, name: &str) -> bool {
        self.find(name).is_none()
    }

    /// Whether two tensors have the same shape, type and elements, bit for bit. Stops at the first that differ.
    fn same(&self, a: TensorId, b: TensorId) -> Result<bool, ImportError>;

    /// Bytes of all tensors together.
    fn weight_bytes(&self) -> u64;

    /// Bytes of weights read so far. Tests use it to show that a rank reads nothing outside its shard.
    fn bytes_read(&self) -> u64;
}

/// The tensors of a folder's files, which are mapped, and the number of bytes read from them.
#[derive(Debug)]
#[doc(hidden)]
pub struct FileTensors {
    path: PathBuf,
    files: Arc<[File]>,
    /// For each tensor, the numbers of its file and of its entry there.
    places: Vec<(usize, usize)>,
    by_name: HashMap<String, TensorId>,
    bytes_read: AtomicU64,
}

impl FileTensors {
    /// The weights of `folder`. Nothing is read yet.
    pub fn open(folder: &Folder) -> FileTensors {
        FileTensors::new(folder.path().to_owned(), folder.files().clone())
    }

    /// The tensors of `files`. `path` is the folder, for messages.
    pub(super) fn new(path: PathBuf, files: Arc<[File]>) -> FileTensors {
        let mut places = Vec::new();
        let mut by_name = HashMap::new();
        for (f, file) in files.iter().enumerate() {
            for (e, entry) in file.entries.iter().enumerate() {
                by_name.insert(entry.name.clone(), TensorId(places.len()));
                places.push((f, e));
            }
        }
        FileTensors { path, files, places, by_name, bytes_read: AtomicU64::new(0) }
    }

    /// All tensors, in the order of their files and bytes.
    pub fn ids(&self) -> impl Iterator<Item = TensorId> + use<> {
        (0..self.places.len()).map(TensorId)
    }

    fn entry(&self, id: TensorId) -> Result<(&File, &Entry), ImportError> {
        let place = self.places.get(id.0).copied();
        let found = place.and_then(|(f, e)| self.files.get(f).and_then(|file| Some((file, file.entries.get(e)?))));
        found.ok_or_else(|| {
            let reason = format!("has {} tensors; number {} is of another model", self.places.len(), id.0);
            ImportError::Folder { path: self.path.clone(), reason }
        })
    }
}

impl Tensors for FileTensors {
    fn find(&self, name: &str) -> Option<TensorId> {
        self.by_name.get(name).copied()
    }

    fn wanted(&mut self, name: &str, _shape: &[usize]) -> Result<Option<TensorId>, ImportError> {
        Ok(self.find(name))
    }

    fn name(&self, id: TensorId) -> Result<&str, ImportError> {
        Ok(&self.entry(id)?.1.name)
    }

    fn shape(&self, id: TensorId) -> Result<&[usize], ImportError> {
        Ok(&self.entry(id)?.1.shape)
    }

    fn file(&self, id: TensorId) -> Result<&Path, ImportError> {
        Ok(&self.entry(id)?.0.path)
    }

    fn dtype(&self, id: TensorId) -> Result<DType, ImportError> {
        let (file, entry) = self.entry(id)?;
        entry.dtype().ok_or_else(|| {
            let found = crate::import::files::bytes::shortened(&entry.file_type, 40);
            entry.error(&file.path, format!("elements of type {found:?} are not supported; supported: {SUPPORTED}"))
        })
    }

    fn same(&self, a: TensorId, b: TensorId) -> Result<bool, ImportError> {
        let ((a_file, a), (b_file, b)) = (self.entry(a)?, self.entry(b)?);
        let (a_bytes, b_bytes) = (a_file.bytes.get(a.range.clone()), b_file.bytes.get(b.range.clone()));
        Ok(a.shape == b.shape && a.file_type == b.file_type && a_bytes == b_bytes)
    }

    fn read(&self, view: &View) -> Result<Tensor, ImportError> {
        let dtype = self.dtype(view.tensor)?;
        let (file, entry) = self.entry(view.tensor)?;
        let bytes = file.bytes.get(entry.range.clone());
        let inside = bytes.and_then(|bytes| Some((bytes, view.numel_within(bytes.len() / dtype.size())?)));
        let Some((bytes, numel)) = inside else {
            let (shape, tensor) = (display_shape(&view.shape), display_shape(&entry.shape));
            let reason = format!(
                "a view of shape {shape}, strides {} from element {} leaves its shape {tensor}",
                display_shape(&view.strides),
                view.offset
            );
            return Err(entry.error(&file.path, reason));
        };
        file.bytes.check_unchanged(&file.path)?;
        let mut out = Tensor::try_zeros(dtype, view.shape.as_slice())?;
        match dtype.size() {
            2 => copy(bytes.as_chunks::<2>().0, view, out.bytes_mut().as_chunks_mut::<2>().0),
            _ => copy(bytes.as_chunks::<4>().0, view, out.bytes_mut().as_chunks_mut::<4>().0),
        }
        self.bytes_read.fetch_add((numel * dtype.size()) as u64, Ordering::Relaxed);
        Ok(out)
    }

    fn weight_bytes(&self) -> u64 {
        self.files.iter().flat_map(|file| &file.entries).map(|entry| entry.range.len() as u64).sum()
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

fn copy<T: Copy>(source: &[T], view: &View, target: &mut [T]) {
    gather(view, target, |at, run| run.copy_from_slice(&source[at..at + run.len()]));
}

/// Fills `target` with the elements of `view`. `fetch` is given the index of a tensor element and a slice, and fills
/// the slice with the elements from that one on.
pub(crate) fn gather<T>(view: &View, target: &mut [T], fetch: impl Fn(usize, &mut [T])) {
    if target.is_empty() {
        return;
    }
    let mut dims = merged(view);
    let (cols, col_stride) = dims.pop().unwrap_or((1, 1));
    let (rows, row_stride) = dims.pop().unwrap_or((1, 1));
    let mut index = vec![0usize; dims.len()];
    for plane in target.chunks_exact_mut(rows * cols) {
        let start = view.offset + index.iter().zip(&dims).map(|(i, (_, stride))| i * stride).sum::<usize>();
        if col_stride == 1 {
            for (row, out) in plane.chunks_exact_mut(cols).enumerate() {
                fetch(start + row * row_stride, out);
            }
        } else {
            for row0 in (0..rows).step_by(TILE) {
                for col0 in (0..cols).step_by(TILE) {
                    for row in row0..(row0 + TILE).min(rows) {
                        for col in col0..(col0 + TILE).min(cols) {
                            let one = std::slice::from_mut(&mut plane[row * cols + col]);
                            fetch(start + row * row_stride + col * col_stride, one);
                        }
                    }
                }
            }
        }
        for d in (0..dims.len()).rev() {
            index[d] += 1;
            if index[d] < dims[d].0 {
                break;
            }
            index[d] = 0;
        }
    }
}

/// The view's dimensions as (length, stride). Neighbouring dimensions that form one contiguous run are merged, so that
/// copies are longer.
fn merged(view: &View) -> Vec<(usize, usize)> {
    let mut dims: Vec<(usize, usize)> = Vec::with_capacity(view.shape.len());
    for (&n, &stride) in view.shape.iter().zip(&view.strides).filter(|(n, _)| **n != 1) {
        match dims.last_mut() {
            Some((length, outer)) if *outer == n * stride => {
                *length *= n;
                *outer = stride;
            }
            _ => dims.push((n, stride)),
        }
    }
    dims
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A FileTensors with one F16 or F32 tensor whose elements are their own indices.
    fn counted(shape: &[usize], dtype: DType) -> FileTensors {
        let n: usize = shape.iter().product();
        let data: Vec<u8> = match dtype {
            DType::F32 => (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect(),
            _ => (0..n).flat_map(|i| half::f16::from_f32(i as f32).to_le_bytes()).collect(),
        };
        let name = dtype.to_string().to_uppercase();
        let header =
            format!("{{\"w\":{{\"dtype\":\"{name}\",\"shape\":{shape:?},\"data_offsets\":[0,{}]}}}}", data.len());
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        let path = PathBuf::from("counted");
        let file = File::from_bytes(path.clone(), crate::import::files::bytes::Bytes::Static(bytes.leak())).unwrap();
        FileTensors::new(path, [file].into())
    }

    fn naive(view: &View) -> Vec<f32> {
        let mut out = Vec::new();
        let mut index = vec![0usize; view.shape.len()];
        for _ in 0..view.numel() {
            out.push((view.offset + index.iter().zip(&view.strides).map(|(i, s)| i * s).sum::<usize>()) as f32);
            for d in (0..index.len()).rev() {
                index[d] += 1;
                if index[d] < view.shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        out
    }

    fn check(weights: &FileTensors, view: &View) {
        let before = weights.bytes_read();
        let read = weights.read(view).unwrap();
        assert_eq!(read.shape(), view.shape);
        assert_eq!(weights.bytes_read() - before, read.bytes().len() as u64);
        assert_eq!(read.widened().as_f32().unwrap(), naive(view), "{view:?}");
    }

    #[test]
    fn views_read_what_a_loop_reads() {
        for dtype in [DType::F32, DType::F16] {
            let weights = counted(&[5, 7, 6], dtype);
            let whole = weights.view(weights.find("w").unwrap()).unwrap();
            check(&weights, &whole);
            check(&weights, &whole.slice(0, 2..4).unwrap());
            check(&weights, &whole.slice(1, 3..7).unwrap());
            check(&weights, &whole.slice(2, 1..2).unwrap());
            check(&weights, &whole.slice(2, 3..3).unwrap());
            check(&weights, &whole.transpose(1, 2).unwrap());
            check(&weights, &whole.transpose(0, 2).unwrap().slice(0, 1..5).unwrap());
            check(&weights, &whole.slice(1, 2..6).unwrap().transpose(0, 1).unwrap().slice(0, 1..3).unwrap());
        }
        let wide = counted(&[70, 45], DType::F32);
        let whole = wide.view(TensorId(0)).unwrap();
        check(&wide, &whole.transpose(0, 1).unwrap());
        check(&wide, &whole.transpose(0, 1).unwrap().region(&Region(vec![3..40, 33..70])).unwrap());
        let scalar = counted(&[], DType::F32);
        check(&scalar, &scalar.view(TensorId(0)).unwrap());
    }

    proptest! {
        #[test]
        fn any_view_reads_what_a_loop_reads(
            shape in prop::collection::vec(0usize..7, 0..5),
            steps in prop::collection::vec((any::<bool>(), any::<[prop::sample::Index; 3]>()), 0..5),
        ) {
            let weights = counted(&shape, DType::F32);
            let mut view = weights.view(TensorId(0)).unwrap();
            for (transpose, [a, b, c]) in steps {
                if shape.is_empty() {
                    break;
                }
                let dim = a.index(shape.len());
                view = if transpose {
                    view.transpose(dim, b.index(shape.len())).unwrap()
                } else {
                    let n = view.shape[dim];
                    let start = b.index(n + 1);
                    view.slice(dim, start..start + c.index(n + 1 - start)).unwrap()
                };
            }
            check(&weights, &view);
        }
    }

    #[test]
    fn a_view_that_leaves_its_tensor_is_an_error() {
        let weights = counted(&[4, 6], DType::F32);
        let id = TensorId(0);
        let whole = weights.view(id).unwrap();
        assert!(matches!(whole.slice(0, 3..5), Err(ImportError::Data(TensorError::Region { .. }))));
        #[expect(clippy::reversed_empty_ranges, reason = "what a careless caller may pass")]
        let reversed = whole.slice(0, 3..2);
        assert!(reversed.is_err() && whole.region(&Region(vec![0..1, 0..1, 0..1])).is_err());
        assert!(matches!(whole.slice(2, 0..1), Err(ImportError::Data(TensorError::Dimension { dim: 2, .. }))));
        assert!(whole.transpose(0, 2).is_err());
        let view = |offset, shape: &[usize], strides: &[usize]| View {
            tensor: id,
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        for bad in [
            view(1, &[4, 6], &[6, 1]),
            view(24, &[1], &[1]),
            view(0, &[2], &[usize::MAX]),
            view(usize::MAX, &[2, 2], &[1, 1]),
            view(0, &[usize::MAX, usize::MAX], &[0, 0]),
            view(0, &[1 << 40], &[0]),
            view(0, &[2, 2], &[1]),
            view(0, &[usize::MAX, 2, 0], &[1, 1, 1]),
        ] {
            let error = weights.read(&bad).unwrap_err();
            assert!(matches!(error, ImportError::Tensor { .. }), "{error:?}");
            assert!(error.to_string().contains("leaves its shape [4, 6]"), "{error}");
        }
        let other = View { tensor: TensorId(1), ..whole };
        assert!(matches!(weights.read(&other), Err(ImportError::Folder { .. })));
        assert_eq!(weights.bytes_read(), 0);
    }
}
