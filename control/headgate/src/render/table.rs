//! Columns.

use super::plain;

/// Rows under a header, columns as wide as they must be.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&name| name.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    /// Removes a column that is empty in every row.
    pub(super) fn without_empty(mut self, column: usize) -> Self {
        let empty = |row: &Vec<String>| row.get(column).is_none_or(String::is_empty);
        if self.rows.iter().skip(1).all(empty) {
            for row in &mut self.rows {
                if column < row.len() {
                    row.remove(column);
                }
            }
        }
        self
    }

    /// The text; `nothing` where there are no rows.
    pub(super) fn text(self, nothing: &str) -> String {
        if self.rows.len() < 2 {
            return format!("No {nothing}.\n");
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
