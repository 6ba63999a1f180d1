//! Advice to the operating system about the pages of large arrays.

use pyo3::prelude::*;

use crate::memory::foreign::ForeignArray;

/// Requests huge pages for memory, preferably before its first write, as NumPy does for its large
/// arrays: the first write of each page then takes less time, and later accesses have fewer TLB
/// misses.
#[cfg(target_os = "linux")]
pub(crate) fn request_huge_pages(start: *mut u8, len: usize) {
    const LEAST: usize = 4 << 20;
    const PAGE: usize = 4096;
    if len < LEAST {
        return;
    }
    let padding = start.addr().wrapping_neg() % PAGE;
    // SAFETY: the advice changes no data, also not in the rest of the last page.
    unsafe {
        libc::madvise(
            start.wrapping_add(padding).cast(),
            len - padding,
            libc::MADV_HUGEPAGE,
        );
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn request_huge_pages(_: *mut u8, _: usize) {}

/// Requests huge pages for the memory of a new tensor. PyTorch's allocator does not.
#[pyfunction]
fn use_huge_pages(tensor: &Bound<'_, ForeignArray>) -> PyResult<()> {
    let array = ForeignArray::array("tensor", tensor)?;
    request_huge_pages(array.data, array.len * array.dtype.size());
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(use_huge_pages, module)?)
}
