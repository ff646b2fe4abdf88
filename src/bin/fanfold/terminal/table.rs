//! Tables: a markdown table whose rows are printed as they become known, and a plain one that fits the terminal.
//!
//! Layout is done by the comfy-table crate. Nothing here knows what a row means. Read `print.rs` for the terminal's width.

use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Row, Table, Width};

/// A column of a table.
#[derive(Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// Whether its cells are numbers, which stand to the right.
    pub numbers: bool,
    /// The width it has at least, in columns of the terminal, for cells that come later.
    pub at_least: usize,
}

impl Column {
    /// A column of words, at the left.
    pub fn words(name: &'static str) -> Column {
        Column { name, numbers: false, at_least: 0 }
    }

    /// A column of numbers, at the right.
    pub fn numbers(name: &'static str) -> Column {
        Column { name, numbers: true, at_least: 0 }
    }

    /// The same column, at least as wide as the longest of `cells`.
    pub fn fitting<'a>(self, cells: impl IntoIterator<Item = &'a str>) -> Column {
        Column { at_least: cells.into_iter().map(|cell| cell.chars().count()).max().unwrap_or(0), ..self }
    }
}

/// A markdown table whose rows come one by one. A column is as wide as its first cell, its heading and `at_least` need.
pub struct MarkdownTable {
    table: Table,
    columns: Vec<Column>,
}

impl MarkdownTable {
    /// A table with headings and no row.
    pub fn new(columns: &[Column]) -> MarkdownTable {
        let mut table = Table::new();
        // The line below the headings is a row of its own here: the preset's says nothing about alignment.
        table.load_style(ASCII_MARKDOWN.header_separator(LineStyle::none()));
        table.set_header(columns.iter().map(|column| column.name));
        for (built, column) in table.column_iter_mut().zip(columns) {
            align(built, column);
            let padded = u16::try_from(column.at_least).unwrap_or(u16::MAX).saturating_add(built.padding_width());
            built.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(padded)));
        }
        MarkdownTable { table, columns: columns.to_vec() }
    }

    /// Adds a row, and returns the lines to print: for the first row the headings as well.
    pub fn row(&mut self, cells: &[String]) -> String {
        let shown = self.table.lines().count();
        if self.table.is_empty() {
            self.table.add_row(cells);
            let widths = self.table.column_max_content_widths();
            let rule = widths.iter().zip(&self.columns).map(|(&width, column)| {
                let width = usize::from(width).max(column.at_least);
                if column.numbers { "-".repeat(width.saturating_sub(1)) + ":" } else { "-".repeat(width) }
            });
            let rule: Vec<String> = rule.collect();
            let mut fresh = MarkdownTable::new(&self.columns);
            fresh.table.add_row(&rule);
            fresh.table.add_row(cells);
            *self = fresh;
            return self.table.to_string();
        }
        self.table.add_row(cells);
        self.table.lines().skip(shown).collect::<Vec<_>>().join("\n")
    }
}

/// A table without lines, in at most `width` columns of a terminal. Where it would be wider, the cells of the column
/// `shortened` are cut and end with an ellipsis.
pub fn plain(columns: &[Column], rows: &[Vec<String>], shortened: usize, width: usize) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.set_header(columns.iter().map(|column| column.name));
    for cells in rows {
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    for (index, (built, column)) in table.column_iter_mut().zip(columns).enumerate() {
        align(built, column);
        built.set_padding((0, 1));
        if index != shortened {
            built.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.trim_fmt()
}

fn align(built: &mut comfy_table::Column, column: &Column) {
    built.set_cell_alignment(if column.numbers { CellAlignment::Right } else { CellAlignment::Left });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_markdown_table_says_how_columns_are_aligned_and_grows_by_rows() {
        let columns = [Column::words("model"), Column::numbers("t/s").fitting(["100.00"]), Column::words("x")];
        let mut table = MarkdownTable::new(&columns);
        let first = table.row(&["llama f16", "1.50", "ä"].map(String::from));
        assert_eq!(
            first.lines().collect::<Vec<_>>(),
            [
                "| model     |    t/s | x |", //
                "| --------- | -----: | - |",
                "| llama f16 |   1.50 | ä |",
            ]
        );
        assert_eq!(table.row(&["a", "12.50", "é"].map(String::from)), "| a         |  12.50 | é |");
        assert_eq!(table.row(&["a", "1234567.50", "é"].map(String::from)).lines().count(), 1);
    }

    #[test]
    fn a_plain_table_is_cut_to_the_terminal_in_one_column_only() {
        let columns = [Column::words("rank"), Column::words("device"), Column::numbers("weights")];
        let rows = [vec!["0".to_string(), "a device of a very long name".to_string(), "12.5 MiB".to_string()]];
        let whole = plain(&columns, &rows, 1, 80);
        assert!(whole.contains("a device of a very long name") && !whole.contains('…'), "{whole}");
        let cut = plain(&columns, &rows, 1, 30);
        assert!(cut.lines().all(|line| line.chars().count() <= 30), "{cut}");
        assert!(cut.contains('…') && cut.contains("12.5 MiB") && cut.lines().count() == 2, "{cut}");
    }
}
