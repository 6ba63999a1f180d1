//! The part of DLPack that describes tensors without a Python call: the table of C functions that
//! tensor classes have since version 1.3.

use std::ffi::{c_int, c_void};

use pyo3::prelude::*;
use pyo3::types::PyCapsule;

/// The device types of CPU memory: `kDLCPU` and `kDLCUDAHost`.
const CPU: [i32; 2] = [1, 3];

/// The major version of these structs.
const MAJOR: u32 = 1;

/// `DLDataType`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ElementType {
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    dtype: ElementType,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// `DLPackExchangeAPIHeader`.
#[repr(C)]
struct Header {
    major: u32,
    minor: u32,
    previous: *const Header,
}

type Describe = unsafe extern "C" fn(*mut c_void, *mut Tensor) -> c_int;

/// `DLPackExchangeAPI`.
#[repr(C)]
struct Table {
    header: Header,
    managed_tensor_allocator: *const c_void,
    managed_tensor_from_py_object_no_sync: *const c_void,
    managed_tensor_to_py_object_no_sync: *const c_void,
    dltensor_from_py_object_no_sync: Option<Describe>,
    current_work_stream: *const c_void,
}

/// The function that describes a tensor of one class.
#[derive(Clone, Copy)]
pub(crate) struct Exchange(Describe);

/// The description of a tensor, which borrows its shape and strides.
pub(crate) struct Described<'a> {
    pub(crate) data: *mut u8,
    pub(crate) on_cpu: bool,
    pub(crate) dtype: ElementType,
    pub(crate) shape: &'a [i64],
    pub(crate) strides: &'a [i64],
}

impl Exchange {
    /// Returns the function of the capsule `__dlpack_c_exchange_api__` of a class, if the capsule
    /// has a known version and the function.
    pub(crate) fn new(capsule: &Bound<'_, PyAny>) -> Option<Self> {
        let capsule = capsule.cast::<PyCapsule>().ok()?;
        let pointer = capsule
            .pointer_checked(Some(c"dlpack_exchange_api"))
            .ok()?
            .as_ptr();
        let mut header: *const Header = pointer.cast();
        // SAFETY: by DLPack's contract a capsule of this name has a table, which begins with a
        // header in every version and lives as long as the process; so do the tables that
        // it is chained to.
        unsafe {
            while (*header).major != MAJOR {
                header = (*header).previous;
                if header.is_null() {
                    return None;
                }
            }
            (*header.cast::<Table>())
                .dltensor_from_py_object_no_sync
                .map(Self)
        }
    }

    /// Describes a tensor. The result is valid until Python code runs.
    ///
    /// # Safety
    /// `tensor` is an instance of the class of the capsule.
    pub(crate) unsafe fn describe<'a>(
        self,
        tensor: &'a Bound<'_, PyAny>,
    ) -> PyResult<Described<'a>> {
        let mut found = Tensor {
            data: std::ptr::null_mut(),
            device_type: 0,
            device_id: 0,
            ndim: 0,
            dtype: ElementType {
                code: 0,
                bits: 0,
                lanes: 0,
            },
            shape: std::ptr::null(),
            strides: std::ptr::null(),
            byte_offset: 0,
        };
        // SAFETY: a tensor of the function's own class, by this function's contract, and the
        // interpreter is attached.
        if unsafe { (self.0)(tensor.as_ptr().cast(), &raw mut found) } != 0 {
            return Err(PyErr::fetch(tensor.py()));
        }
        let rank = usize::try_from(found.ndim).unwrap_or_default();
        // SAFETY: both have `ndim` numbers in this version of DLPack, and may be null where it is
        // 0.
        let numbers = |start: *const i64| unsafe {
            if rank == 0 || start.is_null() {
                &[][..]
            } else {
                std::slice::from_raw_parts(start, rank)
            }
        };
        let offset = usize::try_from(found.byte_offset).unwrap_or_default();
        Ok(Described {
            data: found.data.cast::<u8>().wrapping_add(offset),
            on_cpu: CPU.contains(&found.device_type),
            dtype: found.dtype,
            shape: numbers(found.shape),
            strides: numbers(found.strides),
        })
    }
}
