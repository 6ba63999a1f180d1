//! The checks of a NumPy array before a kernel uses its memory.

use std::fmt;
use std::ops::Range;

use fastoptim::storage::{Encoding, Half};
use numpy::npyffi::{
    NPY_ARRAY_ALIGNED, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_WRITEABLE, PyArrayObject,
};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::memory::foreign::ForeignArray;

/// The element types supported by kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    /// Numbers in one of the encodings of the core.
    Number(Encoding),
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
}

impl Dtype {
    pub(crate) const F16: Self = Self::Number(Encoding::Half(Half::F16));
    pub(crate) const BF16: Self = Self::Number(Encoding::Half(Half::Bf16));
    pub(crate) const F32: Self = Self::Number(Encoding::F32);
    pub(crate) const F64: Self = Self::Number(Encoding::F64);
    pub(crate) const I8: Self = Self::Number(Encoding::Signed);
    pub(crate) const U8: Self = Self::Number(Encoding::Squares);

    /// Converts a NumPy dtype. Returns `None` if it is not supported or not of native byte order.
    pub(crate) fn of(descr: &Bound<'_, PyArrayDescr>) -> Option<Self> {
        let dtype = match (descr.kind(), descr.itemsize()) {
            (b'f', 2) => Self::F16,
            (b'f', 4) => Self::F32,
            (b'f', 8) => Self::F64,
            (b'i', 1) => Self::I8,
            (b'i', 2) => Self::I16,
            (b'i', 4) => Self::I32,
            (b'i', 8) => Self::I64,
            (b'u', 1) => Self::U8,
            (b'u', 2) => Self::U16,
            (b'u', 4) => Self::U32,
            (b'u', 8) => Self::U64,
            (b'V', 2) if is_bfloat16(descr) => Self::BF16,
            _ => return None,
        };
        // Dtypes of one byte have no byte order.
        descr.is_native_byteorder().unwrap_or(true).then_some(dtype)
    }

    /// Returns the NumPy dtype. For bfloat16 it imports ml_dtypes; the error of a missing ml_dtypes
    /// says what to install.
    pub(crate) fn descr(self, py: Python<'_>) -> PyResult<Bound<'_, PyArrayDescr>> {
        if self == Self::BF16 {
            let kind = py.import("fastoptim._extras")?.call_method0("bfloat16")?;
            return PyArrayDescr::new(py, kind);
        }
        PyArrayDescr::new(py, self.to_string())
    }

    /// Returns the dtype of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        const ALL: [Dtype; 12] = [
            Dtype::F16,
            Dtype::BF16,
            Dtype::F32,
            Dtype::F64,
            Dtype::I8,
            Dtype::I16,
            Dtype::I32,
            Dtype::I64,
            Dtype::U8,
            Dtype::U16,
            Dtype::U32,
            Dtype::U64,
        ];
        ALL.into_iter().find(|dtype| dtype.to_string() == name)
    }

    pub(crate) fn size(self) -> usize {
        match self {
            Self::Number(encoding) => encoding.width(),
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 => 4,
            Self::I64 | Self::U64 => 8,
        }
    }

    /// Returns whether an address is a multiple of the size, which is a power of 2.
    pub(crate) fn aligns(self, data: *mut u8) -> bool {
        data.addr() & (self.size() - 1) == 0
    }

    /// Returns whether its elements are integers.
    pub(crate) fn is_integer(self) -> bool {
        !self.is_float()
    }

    /// Returns whether parameters may have this dtype.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Returns whether this is a 16-bit format.
    pub(crate) fn is_half(self) -> bool {
        matches!(self, Self::Number(Encoding::Half(_)))
    }

    /// Returns the type of computation for numbers of this dtype.
    pub(crate) fn arithmetic(self) -> Self {
        if self == Self::F64 {
            Self::F64
        } else {
            Self::F32
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number(encoding) => encoding.name(),
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
        })
    }
}

/// A C-contiguous, aligned array of native byte order.
pub(crate) struct Array<'py> {
    /// What keeps the memory alive.
    pub(crate) object: Bound<'py, PyAny>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) len: usize,
    pub(crate) data: *mut u8,
    pub(crate) writable: bool,
}

impl<'py> Array<'py> {
    /// Checks the type and the layout. Error messages use `name`.
    pub(crate) fn new(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(foreign) = object.cast::<ForeignArray>() {
            return ForeignArray::array(name, foreign);
        }
        let array = object.cast::<PyUntypedArray>().map_err(|_| {
            let kind = object
                .get_type()
                .name()
                .map_or_else(|_| "?".into(), |n| n.to_string());
            PyTypeError::new_err(format!("{name} must be a numpy.ndarray, got {kind}"))
        })?;
        check_class(name, object)?;
        let descr = array.dtype();
        let dtype = Dtype::of(&descr).ok_or_else(|| {
            PyTypeError::new_err(format!(
                "{name} must be float32, float64, float16 or bfloat16 (class indices any integer \
                 type) of native byte order, got {descr}"
            ))
        })?;
        // SAFETY: the object is an ndarray, and the interpreter is attached.
        let raw: &PyArrayObject = unsafe { &*array.as_array_ptr() };
        if raw.fields.flags & NPY_ARRAY_C_CONTIGUOUS == 0 {
            return Err(PyValueError::new_err(format!(
                "{name} must be C-contiguous; numpy.ascontiguousarray returns a contiguous copy"
            )));
        }
        let data = raw.fields.data.cast::<u8>();
        if raw.fields.flags & NPY_ARRAY_ALIGNED == 0 || !dtype.aligns(data) {
            return Err(PyValueError::new_err(format!(
                "{name} must be aligned to its element size; copy() returns an aligned copy"
            )));
        }
        let shape = array.shape().to_vec();
        let len = shape.iter().product();
        let writable = raw.fields.flags & NPY_ARRAY_WRITEABLE != 0;
        Ok(Self {
            object: object.clone(),
            dtype,
            shape,
            len,
            data,
            writable,
        })
    }

    pub(crate) fn require_writable(&self, name: &str) -> PyResult<()> {
        if self.writable {
            Ok(())
        } else {
            Err(PyValueError::new_err(format!("{name} is read-only")))
        }
    }

    /// Checks that the dtype and the shape are those of its parameter.
    pub(crate) fn require_match(&self, name: &str, dtype: Dtype, shape: &[usize]) -> PyResult<()> {
        if self.dtype != dtype {
            return Err(PyTypeError::new_err(format!(
                "{name} must be {dtype} as its parameter is, got {}",
                self.dtype
            )));
        }
        if self.shape != shape {
            return Err(PyValueError::new_err(format!(
                "{name} must have the shape {shape:?} of its parameter, got {:?}",
                self.shape
            )));
        }
        Ok(())
    }

    /// Returns the range of addresses of the array.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.data.addr();
        start..start + self.len * self.dtype.size()
    }

    /// Borrows the elements.
    ///
    /// # Safety
    /// `T` is the type of `dtype`, the array outlives `'a`, and no other code writes it during
    /// `'a`.
    pub(crate) unsafe fn slice<'a, T>(&self) -> &'a [T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.size());
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `new` found `len` contiguous and aligned elements of `dtype`. By this function's
        // contract `T` is that type, they outlive `'a`, and no other code writes them.
        unsafe { std::slice::from_raw_parts(self.data.cast(), self.len) }
    }

    /// Borrows the elements for writing.
    ///
    /// # Safety
    /// As for [`Array::slice`]; the array is writable, and no other code reads it during `'a`.
    pub(crate) unsafe fn slice_mut<'a, T>(&self) -> &'a mut [T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.size());
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: `new` found `len` contiguous and aligned elements of `dtype`. By this function's
        // contract `T` is that type, they are writable and outlive `'a`, and no other code accesses
        // them.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast(), self.len) }
    }
}

/// Evaluates an expression with `$T` as the type of the elements, `f32` or `f64`.
macro_rules! with_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::memory::numpy::Dtype::F32 => {
                type $T = f32;
                $body
            }
            _ => {
                type $T = f64;
                $body
            }
        }
    };
}
pub(crate) use with_float;

/// Checks an array whose dtype must be a type of computation, float32 or float64.
pub(crate) fn floats<'py>(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let array = Array::new(name, object)?;
    if matches!(array.dtype, Dtype::F32 | Dtype::F64) {
        return Ok(array);
    }
    Err(PyTypeError::new_err(format!(
        "{name} must be float32 or float64, got {}",
        array.dtype
    )))
}

/// Checks an array whose dtype must be one of parameters and gradients.
pub(crate) fn numbers<'py>(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let array = Array::new(name, object)?;
    if array.dtype.is_float() {
        return Ok(array);
    }
    Err(PyTypeError::new_err(format!(
        "{name} must be float32, float64, float16 or bfloat16, got {}",
        array.dtype
    )))
}

/// The layout of a checked array, for a fast comparison in later calls.
pub(crate) struct Layout {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) len: usize,
    pub(crate) data: Address,
}

/// The address of the first byte of an array.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) *mut u8);

// SAFETY: an address gives no access to memory without further unsafe code.
unsafe impl Send for Address {}
// SAFETY: as for `Send`.
unsafe impl Sync for Address {}

impl Layout {
    pub(crate) fn of(array: &Array<'_>) -> Self {
        Self {
            dtype: array.dtype,
            shape: array.shape.clone(),
            len: array.len,
            data: Address(array.data),
        }
    }

    /// Returns the range of addresses of the array.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.data.0.addr();
        start..start + self.len * self.dtype.size()
    }

    /// Returns the address of `object` and whether it is writable, if it is a plain array of this
    /// dtype and shape.
    pub(crate) fn recognize(&self, object: &Bound<'_, PyAny>) -> Option<(*mut u8, bool)> {
        recognize(object, self.dtype, &self.shape)
    }
}

/// Returns the address of `object` and whether it is writable, if it is a plain array of this dtype
/// and shape that passes all checks of [`Array::new`]. If the result is `None`, that function
/// returns the reason as an error.
fn recognize(object: &Bound<'_, PyAny>, dtype: Dtype, shape: &[usize]) -> Option<(*mut u8, bool)> {
    const FIT: i32 = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
    let known = known(object.py()).ok()?;
    if object.get_type_ptr() != known.ndarray.as_ptr().cast() {
        return None;
    }
    // SAFETY: the type of the object is ndarray, and the interpreter is attached.
    let raw: &PyArrayObject = unsafe { &*object.as_ptr().cast() };
    let raw = &raw.fields;
    let dims: &[isize] = match usize::try_from(raw.nd).ok()? {
        0 => &[],
        // SAFETY: an ndarray's dimensions are `nd` integers.
        rank => unsafe { std::slice::from_raw_parts(raw.dimensions, rank) },
    };
    let descr = match dtype {
        Dtype::F32 => known.f32.as_ptr(),
        Dtype::F64 => known.f64.as_ptr(),
        Dtype::F16 => known.f16.as_ptr(),
        Dtype::BF16 => bfloat16(object.py())?.as_ptr(),
        _ => return None,
    };
    let data = raw.data.cast::<u8>();
    let fits = std::ptr::eq(raw.descr.cast(), descr)
        && raw.flags & FIT == FIT
        && dtype.aligns(data)
        && dims.len() == shape.len()
        && dims.iter().zip(shape).all(|(&dim, &n)| dim as usize == n);
    fits.then_some((data, raw.flags & NPY_ARRAY_WRITEABLE != 0))
}

/// The memory of a checked array. It holds a reference to the array, which keeps the memory alive.
#[derive(Clone)]
pub(crate) struct Memory<'py> {
    /// Not read; keeps the memory alive.
    _array: Bound<'py, PyAny>,
    pub(crate) data: Address,
    pub(crate) len: usize,
    pub(crate) dtype: Dtype,
    pub(crate) writable: bool,
}

impl<'py> Memory<'py> {
    /// Creates writable memory that `owner` keeps alive.
    pub(crate) fn of(owner: Bound<'py, PyAny>, data: Address, len: usize, dtype: Dtype) -> Self {
        Self {
            _array: owner,
            data,
            len,
            dtype,
            writable: true,
        }
    }
}

impl Memory<'_> {
    /// Returns the range of addresses of the array.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.data.0.addr();
        start..start + self.len * self.dtype.size()
    }

    /// Returns `len` elements from index `start`, or `None` if there are fewer.
    pub(crate) fn piece(&self, start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len)?;
        let data = self.data.0.wrapping_add(start * self.dtype.size());
        (end <= self.len).then(|| Self {
            data: Address(data),
            len,
            ..self.clone()
        })
    }
}

/// Checks an array that must have this shape and one of these dtypes, the first of which is that of
/// the parameter. `name` is called only for an error.
#[inline]
pub(crate) fn matching<'py>(
    name: impl FnOnce() -> String,
    object: Bound<'py, PyAny>,
    dtypes: &[Dtype],
    shape: &[usize],
) -> PyResult<Memory<'py>> {
    let recognized = dtypes.iter().find_map(|&dtype| {
        let (data, writable) = recognize(&object, dtype, shape)?;
        Some((dtype, data, writable))
    });
    let (dtype, data, writable) = match recognized {
        Some(found) => found,
        None => unrecognized(&name(), &object, dtypes, shape)?,
    };
    Ok(Memory {
        _array: object,
        data: Address(data),
        len: shape.iter().product(),
        dtype,
        writable,
    })
}

/// Returns the dtype, the address and whether it is writable of an array that `recognize` does not
/// accept.
#[cold]
fn unrecognized(
    name: &str,
    object: &Bound<'_, PyAny>,
    dtypes: &[Dtype],
    shape: &[usize],
) -> PyResult<(Dtype, *mut u8, bool)> {
    let array = Array::new(name, object)?;
    let dtype = if dtypes.contains(&array.dtype) {
        array.dtype
    } else {
        dtypes[0]
    };
    array.require_match(name, dtype, shape)?;
    Ok((dtype, array.data, array.writable))
}

/// Objects of NumPy that identify the type and the dtype of an array.
struct Known {
    ndarray: Py<PyType>,
    f16: Py<PyArrayDescr>,
    f32: Py<PyArrayDescr>,
    f64: Py<PyArrayDescr>,
}

fn known(py: Python<'_>) -> PyResult<&'static Known> {
    static KNOWN: PyOnceLock<Known> = PyOnceLock::new();
    KNOWN.get_or_try_init(py, || {
        Ok(Known {
            ndarray: py.get_type::<PyUntypedArray>().unbind(),
            f16: PyArrayDescr::new(py, "float16")?.unbind(),
            f32: dtype::<f32>(py).unbind(),
            f64: dtype::<f64>(py).unbind(),
        })
    })
}

/// Returns the dtype of `ml_dtypes.bfloat16` if that module has been imported.
fn bfloat16(py: Python<'_>) -> Option<&'static Py<PyArrayDescr>> {
    static FOUND: PyOnceLock<Py<PyArrayDescr>> = PyOnceLock::new();
    if FOUND.get(py).is_none() {
        let modules = py.import("sys").ok()?.getattr("modules").ok()?;
        let kind = modules.get_item("ml_dtypes").ok()?;
        let kind = kind.getattr("bfloat16").ok()?;
        let found = PyArrayDescr::new(py, kind).ok()?;
        FOUND.set(py, found.unbind()).ok()?;
    }
    FOUND.get(py)
}

fn is_bfloat16(descr: &Bound<'_, PyArrayDescr>) -> bool {
    let py = descr.py();
    bfloat16(py).is_some_and(|known| known.bind(py).num() == descr.num())
}

/// Checks that an array is a plain array or a memory map. Other subclasses may give the elements
/// another meaning, as masked arrays do.
fn check_class(name: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
    static MEMMAP: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = object.py();
    let class = object.get_type();
    if class.is(&known(py)?.ndarray) || class.is(MEMMAP.import(py, "numpy", "memmap")?) {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!(
        "{name} must be a plain numpy.ndarray, got the subclass {}",
        class.name()?
    )))
}

/// Checks that no written array shares memory with another array.
pub(crate) fn check_disjoint(
    written: &[(&str, Range<usize>)],
    read: &[(&str, Range<usize>)],
) -> PyResult<()> {
    let mut all: Vec<(&Range<usize>, &str, bool)> = Vec::with_capacity(written.len() + read.len());
    all.extend(written.iter().map(|(name, range)| (range, *name, true)));
    all.extend(read.iter().map(|(name, range)| (range, *name, false)));
    all.retain(|(range, ..)| !range.is_empty());
    all.sort_unstable_by_key(|(range, ..)| (range.start, range.end));
    // The largest end so far of all ranges, and of written ranges.
    let mut furthest: [Option<(usize, &str)>; 2] = [None, None];
    for (range, name, writes) in all {
        let [any, exclusive] = furthest;
        let before = if writes { any } else { exclusive };
        if let Some((end, other)) = before
            && range.start < end
        {
            return Err(PyValueError::new_err(format!(
                "{other} and {name} share memory"
            )));
        }
        if any.is_none_or(|(end, _)| range.end > end) {
            furthest[0] = Some((range.end, name));
        }
        if writes && exclusive.is_none_or(|(end, _)| range.end > end) {
            furthest[1] = Some((range.end, name));
        }
    }
    Ok(())
}
