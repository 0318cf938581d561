//! Multi-row VALUES lists. Arrays as arguments exist on one database only, so
//! a batch is cut into lists of a few fixed lengths: few texts to prepare, and
//! a long batch in few statements.

use std::fmt::Write;

/// The lengths of lists, longest first. The product with the columns of the
/// widest list stays far below both databases' limits (32,766 arguments).
const LENGTHS: [usize; 5] = [256, 32, 8, 2, 1];

/// The batch as consecutive slices, each of a length of [`LENGTHS`].
pub(super) fn slices<T>(mut batch: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let len = LENGTHS.into_iter().find(|len| *len <= batch.len())?;
        let (head, tail) = batch.split_at(len);
        batch = tail;
        Some(head)
    })
}

/// `rows` rows of arguments: `($1, $2, $4, $5), ($1, $2, $6, $7)` for
/// `shared` = `"$1, $2, "`, two columns and `first` = 4. `shared` leads each row.
pub(super) fn rows(rows: usize, shared: &str, first: usize, columns: usize) -> String {
    let mut list = String::with_capacity(rows * (shared.len() + columns * 7 + 4));
    for row in 0..rows {
        list.push_str(if row == 0 { "(" } else { ", (" });
        list.push_str(shared);
        for column in 0..columns {
            let comma = if column == 0 { "" } else { ", " };
            write!(list, "{comma}${}", first + row * columns + column)
                .expect("a String takes any text");
        }
        list.push(')');
    }
    list
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn slices_hold_every_item_once_and_in_order() {
        for len in [0, 1, 3, 4, 255, 256, 1_000] {
            let batch: Vec<usize> = (0..len).collect();
            let joined: Vec<usize> = slices(&batch).flatten().copied().collect();
            assert_eq!(joined, batch);
            assert!(slices(&batch).all(|slice| LENGTHS.contains(&slice.len())));
        }
    }

    #[test]
    fn arguments_are_numbered_on_from_row_to_row() {
        assert_eq!(
            rows(2, "$1, $2, ", 4, 2),
            "($1, $2, $4, $5), ($1, $2, $6, $7)"
        );
        assert_eq!(rows(1, "", 1, 3), "($1, $2, $3)");
    }
}
