//! From rows to values of the domain. Whatever this program could not have
//! written is reported as corrupt, with its column.

use std::fmt;
use std::str::FromStr;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::StoreError;

/// A text column that is never null.
pub(super) fn text(row: &AnyRow, column: &'static str) -> Result<String, StoreError> {
    Ok(row.try_get(column)?)
}

/// A text column, or `None` for null.
pub(super) fn text_or_null(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<String>, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column of bytes that is never null.
pub(super) fn bytes(row: &AnyRow, column: &'static str) -> Result<Vec<u8>, StoreError> {
    Ok(row.try_get(column)?)
}

/// A bigint column as the domain's own number type.
pub(super) fn number<T: TryFrom<i64>>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    let value: i64 = row.try_get(column)?;
    T::try_from(value).map_err(|_| corrupt(column, value))
}

/// A bigint column as the domain's own number type, or `None` for null.
pub(super) fn number_or_null<T: TryFrom<i64>>(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let value: Option<i64> = row.try_get(column)?;
    value
        .map(|value| T::try_from(value).map_err(|_| corrupt(column, value)))
        .transpose()
}

/// A text column that names a variant, such as a state.
pub(super) fn name<T: FromStr>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    let value = text(row, column)?;
    value.parse().map_err(|_| corrupt(column, value))
}

/// A number for a bigint column.
pub(super) fn stored(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::TooLarge(value))
}

/// The error of a value that this program does not write.
pub(super) fn corrupt(column: &'static str, value: impl fmt::Display) -> StoreError {
    StoreError::Corrupt {
        column,
        value: value.to_string(),
    }
}
