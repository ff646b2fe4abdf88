//! [`RandomTensors`]: tensors of random numbers, for a model without weight files. An element is computed when it is
//! read, from the seed, the tensor's name and the element's index.
//!
//! This module deliberately knows no model: it creates whatever tensor is asked for, by name and shape. The numbers are
//! scaled so that a layer keeps the magnitude of its input and no value overflows in 16 bits. Read `tensors.rs` for the
//! trait that this implements, and `Model::random` in `open.rs` for its use.

use crate::import::ImportError;
use crate::import::files::tensors::gather;
use crate::import::files::tensors::{TensorId, Tensors, View};
use crate::random::Random;
use crate::shape::{checked_numel, display_shape};
use crate::tensor::{DType, Tensor, ask_for};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest number of elements of a tensor, 2^40. The largest tensors of published models have about 2^32, so a
/// larger one comes from a mistake in the configuration.
const MAX_NUMEL: usize = 1 << 40;

/// The number of tensor elements that are made from one 64-bit random word, 16 bits each.
const LANES: usize = 4;

/// Random tensors that all have one element type. [`Tensors::wanted`] creates them by name and shape; no element is
/// stored.
#[derive(Debug)]
#[doc(hidden)]
pub struct RandomTensors {
    path: PathBuf,
    dtype: DType,
    seed: u64,
    tensors: Vec<(String, Vec<usize>)>,
    by_name: HashMap<String, TensorId>,
    bytes_read: AtomicU64,
}

impl RandomTensors {
    /// A set without tensors. Those created later have the element type `dtype`. `path` is the configuration file,
    /// which error messages name because the tensors' shapes follow from it.
    pub fn new(path: &Path, dtype: DType, seed: u64) -> RandomTensors {
        let (tensors, by_name, bytes_read) = Default::default();
        RandomTensors { path: path.to_owned(), dtype, seed, tensors, by_name, bytes_read }
    }

    fn tensor(&self, id: TensorId) -> Result<&(String, Vec<usize>), ImportError> {
        self.tensors.get(id.0).ok_or_else(|| {
            let reason = format!("calls for {} tensors; number {} is of another model", self.tensors.len(), id.0);
            ImportError::Folder { path: self.path.clone(), reason }
        })
    }

    fn error(&self, tensor: &str, reason: String) -> ImportError {
        ImportError::Config { path: self.path.clone(), field: format!("tensor {tensor}"), reason }
    }
}

impl Tensors for RandomTensors {
    fn find(&self, name: &str) -> Option<TensorId> {
        self.by_name.get(name).copied()
    }

    fn wanted(&mut self, name: &str, shape: &[usize]) -> Result<Option<TensorId>, ImportError> {
        if let Some(known) = self.find(name) {
            return Ok(Some(known));
        }
        if checked_numel(shape).is_none_or(|n| n > MAX_NUMEL) {
            let reason =
                format!("shape {} is larger than any machine holds: are the sizes right?", display_shape(shape));
            return Err(self.error(name, reason));
        }
        let id = TensorId(self.tensors.len());
        self.tensors.push((name.to_string(), shape.to_vec()));
        self.by_name.insert(name.to_string(), id);
        Ok(Some(id))
    }

    fn name(&self, id: TensorId) -> Result<&str, ImportError> {
        Ok(&self.tensor(id)?.0)
    }

    fn shape(&self, id: TensorId) -> Result<&[usize], ImportError> {
        Ok(&self.tensor(id)?.1)
    }

    fn file(&self, id: TensorId) -> Result<&Path, ImportError> {
        self.tensor(id).map(|_| self.path.as_path())
    }

    fn dtype(&self, id: TensorId) -> Result<DType, ImportError> {
        self.tensor(id).map(|_| self.dtype)
    }

    fn lacks(&self, _name: &str) -> bool {
        false
    }

    fn same(&self, a: TensorId, b: TensorId) -> Result<bool, ImportError> {
        Ok(a == b)
    }

    fn read(&self, view: &View) -> Result<Tensor, ImportError> {
        let (name, shape) = self.tensor(view.tensor)?;
        let numel = view.numel_within(shape.iter().product()).ok_or_else(|| {
            let (shape, seen) = (display_shape(shape), display_shape(&view.shape));
            self.error(name, format!("a view of shape {seen} from element {} leaves its shape {shape}", view.offset))
        })?;
        let (random, spread) = (stream(self.seed, name), Spread::of(name, shape));
        ask_for(numel.saturating_mul(4))?;
        let mut values = vec![0f32; numel];
        gather(view, &mut values, |at, run| {
            fill(&random, spread, at, run);
            Ok::<(), ImportError>(())
        })?;
        self.bytes_read.fetch_add((numel * self.dtype.size()) as u64, Ordering::Relaxed);
        Ok(Tensor::f32(view.shape.as_slice(), values)?.rounded(self.dtype))
    }

    fn weight_bytes(&self) -> u64 {
        let numels = self.tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64);
        numels.sum::<u64>().saturating_mul(self.dtype.size() as u64)
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

/// The distribution of a tensor's numbers: uniform over `middle - width..middle + width`.
#[derive(Clone, Copy)]
struct Spread {
    middle: f32,
    width: f32,
}

impl Spread {
    /// The distribution for the tensor `name` of `shape`. Matrices have the variance 1 / columns, so that a product
    /// keeps the magnitude of its input. Vectors whose names end in `bias` are close to 0. Other vectors, the weights
    /// of norms, are close to 1.
    fn of(name: &str, shape: &[usize]) -> Spread {
        match shape {
            [.., _, columns] => Spread { middle: 0.0, width: (3.0 / *columns as f32).sqrt() },
            _ if name.ends_with("bias") => Spread { middle: 0.0, width: 0.02 },
            _ => Spread { middle: 1.0, width: 0.02 },
        }
    }
}

/// The random generator of one tensor. It is seeded with the FNV-1a hash of the tensor's name, started from `seed`, so
/// that each tensor has its own sequence of numbers.
fn stream(seed: u64, name: &str) -> Random {
    let start = 0xcbf2_9ce4_8422_2325 ^ Random::new(seed).word();
    let hash = name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    Random::new(Random::new(hash).word())
}

/// Fills `run` with the tensor's elements from index `at` on. The elements `4 * i..4 * i + 4` come from word `i` of
/// `random`, so that an element is the same wherever a read begins.
fn fill(random: &Random, spread: Spread, at: usize, run: &mut [f32]) {
    let scale = spread.width / 32768.0;
    let number = |word: u64, lane: usize| spread.middle + scale * f32::from((word >> (16 * lane)) as u16 as i16);
    let word = |group: usize| random.nth(group as u64);
    // A run may begin and end in the middle of a group of `LANES` elements that share a word: `head` and `tail` are the
    // incomplete groups.
    let (head, rest) = run.split_at_mut((at.next_multiple_of(LANES) - at).min(run.len()));
    for (i, value) in head.iter_mut().enumerate() {
        *value = number(word(at / LANES), (at + i) % LANES);
    }
    let first = at.div_ceil(LANES);
    let (groups, tail) = rest.as_chunks_mut::<LANES>();
    let last = first + groups.len();
    for (i, group) in groups.iter_mut().enumerate() {
        let word = word(first + i);
        for (lane, value) in group.iter_mut().enumerate() {
            *value = number(word, lane);
        }
    }
    for (lane, value) in tail.iter_mut().enumerate() {
        *value = number(word(last), lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Region;
    use proptest::prelude::*;

    fn made_up(dtype: DType, seed: u64, name: &str, shape: &[usize]) -> (RandomTensors, View) {
        let mut tensors = RandomTensors::new(Path::new("config.json"), dtype, seed);
        let id = tensors.wanted(name, shape).unwrap().unwrap();
        let view = tensors.view(id).unwrap();
        (tensors, view)
    }

    fn numbers(dtype: DType, seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
        let (tensors, view) = made_up(dtype, seed, name, shape);
        tensors.read(&view).unwrap().widened().as_f32().unwrap().to_vec()
    }

    proptest! {
        /// A region of a view has the same numbers as that region of the whole tensor, wherever it begins and whether
        /// or not the view is transposed.
        #[test]
        fn any_part_is_a_part_of_the_whole(
            shape in prop::collection::vec(1usize..9, 2..4),
            ends in any::<[[prop::sample::Index; 2]; 3]>(),
            turned in any::<bool>(),
        ) {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let (tensors, mut view) = made_up(dtype, 7, "w", &shape);
                if turned {
                    view = view.transpose(0, shape.len() - 1).unwrap();
                }
                let whole = tensors.read(&view).unwrap();
                let ranges = view.shape.iter().zip(ends).map(|(&n, [a, b])| {
                    let (a, b) = (a.index(n + 1), b.index(n + 1));
                    a.min(b)..a.max(b)
                });
                let region = Region(ranges.collect());
                let part = tensors.read(&view.region(&region).unwrap()).unwrap();
                prop_assert_eq!(part, whole.slice(&region).unwrap());
            }
        }
    }

    #[test]
    fn numbers_are_spread_as_a_layer_needs_them() {
        let values = numbers(DType::F16, 1, "a.weight", &[300, 400]);
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 1e-3 && (variance * 400.0 - 1.0).abs() < 0.02, "{mean} {variance}");
        // Neighbouring numbers are not correlated, although four of them come from one word.
        for distance in 1..9 {
            let product: f64 = values.iter().zip(&values[distance..]).map(|(&a, &b)| f64::from(a * b)).sum();
            assert!((product / n * 400.0).abs() < 0.02, "{distance}: {}", product / n * 400.0);
        }
        assert!(numbers(DType::F16, 1, "norm.weight", &[50]).iter().all(|x| (x - 1.0).abs() < 0.03));
        assert!(numbers(DType::F16, 1, "q.bias", &[50]).iter().all(|x| x.abs() < 0.03));
    }

    #[test]
    fn names_and_seeds_make_other_numbers_and_nothing_else_does() {
        let first = numbers(DType::F32, 1, "a", &[64, 8]);
        assert_eq!(numbers(DType::F32, 1, "a", &[64, 8]), first);
        for other in [numbers(DType::F32, 2, "a", &[64, 8]), numbers(DType::F32, 1, "b", &[64, 8])] {
            let same = other.iter().zip(&first).filter(|(a, b)| a == b).count();
            assert!(same < 3, "{same} of 512 numbers are the same");
        }
    }

    #[test]
    fn what_no_machine_holds_is_an_error() {
        let mut tensors = RandomTensors::new(Path::new("c.json"), DType::F16, 0);
        for shape in [[1 << 31, 1 << 31], [usize::MAX, 2], [1 << 20, (1 << 20) + 1]] {
            let error = tensors.wanted("w", &shape).unwrap_err().to_string();
            assert!(
                error.contains("c.json: tensor w: shape [") && error.contains("larger than any machine"),
                "{error}"
            );
        }
        let id = tensors.wanted("w", &[4, 4]).unwrap().unwrap();
        let view = View { tensor: id, offset: 8, shape: vec![3, 4], strides: vec![4, 1] };
        assert!(tensors.read(&view).unwrap_err().to_string().contains("leaves its shape [4, 4]"));
        assert!(tensors.view(TensorId(1)).is_err());
    }
}
