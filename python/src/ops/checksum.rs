//! CRC-32, and reading from files with a CRC-32 check.

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PySlice;

/// Bytes per read, so few that they are still in the cache when their checksum is computed.
const PIECE: usize = 1 << 20;

/// The number of bytes from which the checksum takes longer than releasing the interpreter.
const RELEASE_FROM: usize = 1 << 15;

/// Returns the CRC-32 of `data` after bytes whose CRC-32 is `value`, like `zlib.crc32`.
#[pyfunction]
#[pyo3(signature = (data, value=0))]
fn crc32(py: Python<'_>, data: PyReadonlyArray1<'_, u8>, value: u32) -> PyResult<u32> {
    let bytes = data.as_slice()?;
    let mut hasher = crc32fast::Hasher::new_with_initial(value);
    if bytes.len() < RELEASE_FROM {
        hasher.update(bytes);
    } else {
        py.detach(|| hasher.update(bytes));
    }
    Ok(hasher.finalize())
}

/// Fills `data` with the bytes of an unbuffered file from `offset`, and compares their CRC-32. No
/// signal is handled during the call. Errors are raised as OSError.
#[pyfunction]
fn read_into(
    py: Python<'_>,
    file: &Bound<'_, PyAny>,
    offset: u64,
    data: &Bound<'_, PyArray1<u8>>,
    checksum: Option<u32>,
) -> PyResult<()> {
    file.call_method1("seek", (offset,))?;
    let (mut done, mut found) = (0, 0);
    while done < data.len()? {
        let end = data.len()?.min(done + PIECE);
        let slice = PySlice::new(py, done as isize, end as isize, 1);
        let count: usize = file
            .call_method1("readinto", (data.get_item(slice)?,))?
            .extract()?;
        if count == 0 || count > end - done {
            return Err(PyOSError::new_err("it was cut off while it was read"));
        }
        let slice = PySlice::new(py, done as isize, (done + count) as isize, 1);
        found = crc32(py, data.get_item(slice)?.extract()?, found)?;
        done += count;
    }
    if checksum.is_some_and(|checksum| checksum != found) {
        return Err(PyOSError::new_err("it was changed while it was read"));
    }
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(crc32, module)?)?;
    module.add_function(wrap_pyfunction!(read_into, module)?)
}
