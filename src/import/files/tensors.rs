//! Reads tensors through strided views. A [`View`] describes part of a tensor; reading it takes exactly these elements
//! from the file.
//!
//! This module deliberately knows neither the purpose of a tensor nor ranks: a rank's shard is a [`View`] like any
//! other. Read `random.rs` for tensors that no file holds, and `joined.rs` for graph weights that consist of several
//! views.

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

/// The number of columns of a transposed view that are fetched before they are stored. Storing one at a time would
/// write a cache line for each element.
const TILE: usize = 32;

/// Bytes of two tensors that are compared at a time.
const COMPARED: usize = 1 << 20;

/// The number of a tensor in a set of [`Tensors`]. It has no meaning for another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(hidden)]
pub struct TensorId(pub(crate) usize);

/// A strided view of a tensor: where in the tensor the elements of a graph weight, or of a part of it, are. Element
/// `[i, j]` of a view of two dimensions is the tensor's element `offset + i * strides[0] + j * strides[1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct View {
    /// The tensor that this is a view of.
    pub tensor: TensorId,
    /// The index of the view's first element in the tensor, counted in elements, row-major.
    pub offset: usize,
    /// The dimensions of the view, outermost first.
    pub shape: Vec<usize>,
    /// For each dimension of the view, the distance in the tensor between neighbouring elements, in elements.
    pub strides: Vec<usize>,
}

impl View {
    /// The view of a whole tensor of `shape`.
    pub fn whole(tensor: TensorId, shape: &[usize]) -> View {
        let mut strides = vec![1usize; shape.len()];
        for d in (1..shape.len()).rev() {
            // The product saturates only for a shape that no tensor in a file has. Reading such a view is an error.
            strides[d - 1] = strides[d].saturating_mul(shape[d].max(1));
        }
        View { tensor, offset: 0, shape: shape.to_vec(), strides }
    }

    /// The part of the view with the indices `range` in dimension `dim`. Errors when the view has no such dimension or
    /// `range` is not inside it.
    pub fn slice(&self, dim: usize, range: Range<usize>) -> Result<View, ImportError> {
        let mut region = Region::whole(&self.shape);
        *region.0.get_mut(dim).ok_or_else(|| self.no_dimension(dim))? = range;
        self.region(&region)
    }

    /// The view with the dimensions `a` and `b` swapped. Errors when the view has no such dimension.
    pub fn transpose(&self, a: usize, b: usize) -> Result<View, ImportError> {
        if let Some(&dim) = [a, b].iter().find(|d| **d >= self.shape.len()) {
            return Err(self.no_dimension(dim).into());
        }
        let mut view = self.clone();
        view.shape.swap(a, b);
        view.strides.swap(a, b);
        Ok(view)
    }

    /// The same elements with an additional first dimension of length 1, so that several views can be concatenated
    /// along it: the matrices `[n, k]` of all experts to one weight `[experts, n, k]`.
    pub fn stacked(&self) -> View {
        let mut view = self.clone();
        view.shape.insert(0, 1);
        view.strides.insert(0, 0);
        view
    }

    /// The part of the view inside `region`, such as a rank's shard. Errors when `region` is not inside the view.
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

    /// The number of elements. `usize::MAX` if it overflows, which it does only for a view that cannot be read.
    pub fn numel(&self) -> usize {
        if self.shape.contains(&0) { 0 } else { checked_numel(&self.shape).unwrap_or(usize::MAX) }
    }

    /// The index in the tensor of element `at` of the view, where `at` counts the view's elements row-major.
    pub(crate) fn element(&self, mut at: usize) -> usize {
        let mut element = self.offset;
        for (&n, &stride) in self.shape.iter().zip(&self.strides).rev() {
            element += at % n.max(1) * stride;
            at /= n.max(1);
        }
        element
    }

    /// The number of elements, if all of them are inside a tensor of `available` elements.
    ///
    /// `None` for a view that reaches beyond the tensor. Also `None` for a view with more elements than the tensor,
    /// which repeats elements, for example with a stride of 0: no weight needs that.
    pub(crate) fn numel_within(&self, available: usize) -> Option<usize> {
        let numel = checked_numel(&self.shape).filter(|n| *n <= available)?;
        (numel == 0 || self.end().is_some_and(|end| end <= available)).then_some(numel)
    }

    fn no_dimension(&self, dim: usize) -> TensorError {
        TensorError::Dimension { shape: self.shape.clone(), dim }
    }

    /// One more than the index in the tensor of the view's last element. `None` when that overflows, when the view is
    /// empty, or when `shape` and `strides` differ in length.
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

/// A set of tensors that the weights of a model are views of: those of files ([`FileTensors`]) or random ones
/// (`RandomTensors`).
///
/// Every method that takes a [`TensorId`] or a [`View`] errors when the set has no tensor of that number.
#[doc(hidden)]
pub trait Tensors: Send + Sync {
    /// The tensor called `name`, or `None` if the set has none of that name.
    fn find(&self, name: &str) -> Option<TensorId>;

    /// The tensor called `name`, for a weight that needs it in `shape`. [`FileTensors`] returns the tensor in the file,
    /// whose shape may differ, or `None` if there is none; the caller compares the shapes. `RandomTensors` creates the
    /// tensor with `shape` if it does not exist yet.
    ///
    /// Errors when a random tensor would have too many elements.
    fn wanted(&mut self, name: &str, shape: &[usize]) -> Result<Option<TensorId>, ImportError>;

    /// The tensor's name.
    fn name(&self, id: TensorId) -> Result<&str, ImportError>;

    /// The tensor's shape.
    fn shape(&self, id: TensorId) -> Result<&[usize], ImportError>;

    /// The path of the file that holds the tensor, for messages. For a random tensor, that of the configuration.
    fn file(&self, id: TensorId) -> Result<&Path, ImportError>;

    /// The type of the tensor's elements. Errors when it is a type that weights cannot have, such as I64.
    fn dtype(&self, id: TensorId) -> Result<DType, ImportError>;

    /// The view of the whole tensor.
    fn view(&self, id: TensorId) -> Result<View, ImportError> {
        Ok(View::whole(id, self.shape(id)?))
    }

    /// A tensor of the shape of `view`, row-major, in the type that the viewed tensor is stored in. Reads no element
    /// outside the view.
    ///
    /// Errors, before it allocates memory, when the view reaches beyond its tensor. Also errors when there is not
    /// enough memory, and when the file has changed since it was opened.
    fn read(&self, view: &View) -> Result<Tensor, ImportError>;

    /// Whether the set has no tensor called `name` and cannot create one. `RandomTensors` can create any.
    fn lacks(&self, name: &str) -> bool {
        self.find(name).is_none()
    }

    /// Whether the tensors `a` and `b` have the same shape, element type and elements, bit for bit. Used to check
    /// whether an embedding and a head that the configuration calls tied really are.
    fn same(&self, a: TensorId, b: TensorId) -> Result<bool, ImportError>;

    /// The size in bytes of all tensors together.
    fn weight_bytes(&self) -> u64;

    /// The number of bytes of elements that [`Tensors::read`] has returned so far. Tests use it to show that a rank
    /// reads nothing outside its shard.
    fn bytes_read(&self) -> u64;
}

/// The tensors of safetensors files, and the number of bytes read from them.
#[derive(Debug)]
#[doc(hidden)]
pub struct FileTensors {
    path: PathBuf,
    files: Arc<[File]>,
    /// For each [`TensorId`], the index of its file in `files` and of its entry in that file.
    places: Vec<(usize, usize)>,
    by_name: HashMap<String, TensorId>,
    bytes_read: AtomicU64,
}

impl FileTensors {
    /// The tensors of `folder`. No element is read yet.
    pub fn open(folder: &Folder) -> FileTensors {
        FileTensors::new(folder.path().to_owned(), folder.files().clone())
    }

    /// The tensors of `files`. `path` is the folder that error messages name.
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

    /// All tensors: file by file, and within a file in the order in which their elements are stored.
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
        if a.shape != b.shape || a.file_type != b.file_type || a.range.len() != b.range.len() {
            return Ok(false);
        }
        // Block by block, so that two large tensors are never in memory.
        let (mut left, mut right) = (vec![0; COMPARED], vec![0; COMPARED]);
        for at in (0..a.range.len()).step_by(COMPARED) {
            let count = COMPARED.min(a.range.len() - at);
            a_file.bytes.read(&a_file.path, a.range.start + at, &mut left[..count])?;
            b_file.bytes.read(&b_file.path, b.range.start + at, &mut right[..count])?;
            if left[..count] != right[..count] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read(&self, view: &View) -> Result<Tensor, ImportError> {
        let dtype = self.dtype(view.tensor)?;
        let (file, entry) = self.entry(view.tensor)?;
        let Some(numel) = view.numel_within(entry.range.len() / dtype.size()) else {
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
            2 => take(file, entry, view, out.bytes_mut().as_chunks_mut::<2>().0)?,
            _ => take(file, entry, view, out.bytes_mut().as_chunks_mut::<4>().0)?,
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

/// Fills `target` with the elements of `view`, which have `N` bytes each, from the file.
fn take<const N: usize>(file: &File, entry: &Entry, view: &View, target: &mut [[u8; N]]) -> Result<(), ImportError>
where
    [u8; N]: Default,
{
    gather(view, target, |at, run| file.bytes.read(&file.path, entry.range.start + at * N, run.as_flattened_mut()))
}

/// Fills `target` with the elements of `view`, row-major. `target` must have as many elements as the view. Each call
/// `fetch(at, run)` must fill `run` with the tensor's contiguous elements from index `at` on. Errors when a call does.
pub(crate) fn gather<T: Copy + Default, E>(
    view: &View,
    target: &mut [T],
    fetch: impl Fn(usize, &mut [T]) -> Result<(), E>,
) -> Result<(), E> {
    if target.is_empty() {
        return Ok(());
    }
    let mut dims = merged(view);
    let (cols, col_stride) = dims.pop().unwrap_or((1, 1));
    let (rows, row_stride) = dims.pop().unwrap_or((1, 1));
    let mut index = vec![0usize; dims.len()];
    let mut columns = Vec::new();
    for plane in target.chunks_exact_mut(rows * cols) {
        let start = view.offset + index.iter().zip(&dims).map(|(i, (_, stride))| i * stride).sum::<usize>();
        if col_stride == 1 {
            for (row, out) in plane.chunks_exact_mut(cols).enumerate() {
                fetch(start + row * row_stride, out)?;
            }
        } else if row_stride == 1 {
            // A transposed view: its columns are contiguous. Several are fetched before they are stored, so that a row of the
            // target gets several neighbouring elements at a time.
            for col0 in (0..cols).step_by(TILE) {
                let count = TILE.min(cols - col0);
                columns.resize(count * rows, T::default());
                for (col, column) in columns.chunks_exact_mut(rows).enumerate() {
                    fetch(start + (col0 + col) * col_stride, column)?;
                }
                for row in 0..rows {
                    for col in 0..count {
                        plane[row * cols + col0 + col] = columns[col * rows + row];
                    }
                }
            }
        } else {
            for (at, element) in plane.iter_mut().enumerate() {
                let (row, col) = (at / cols, at % cols);
                fetch(start + row * row_stride + col * col_stride, std::slice::from_mut(element))?;
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
    Ok(())
}

/// The view's dimensions as (length, stride), without those of length 1. A dimension and the next one are merged where
/// a step in the first equals a whole pass through the second: `[4, 6]` with strides `[6, 1]` becomes `[24]` with
/// `[1]`. Copied runs are then longer.
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

    /// A [`FileTensors`] with one F16 or F32 tensor `w` of `shape`, in which each element is its own row-major index.
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
