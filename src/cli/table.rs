//! Aligned columns, as wide as a terminal shows them: a Chinese character takes two.

use unicode_width::UnicodeWidthStr;

/// Between two columns.
const GAP: usize = 2;

/// Rows of text under each other.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// A text, and how it is painted.
#[derive(Debug, Default)]
pub(super) struct Cell {
    text: String,
    style: owo_colors::Style,
    right: bool,
}

impl Cell {
    /// The same, painted.
    pub(super) fn style(self, style: owo_colors::Style) -> Self {
        Self { style, ..self }
    }

    /// The same, at the right edge of its column: for numbers.
    pub(super) fn right(self) -> Self {
        Self { right: true, ..self }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

impl Table {
    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The first of some tables, each smaller than the one before, that fits the terminal; the last one if none does.
    /// Where there is no terminal, all fit.
    pub(super) fn that_fits(tables: impl IntoIterator<Item = Self>) -> Self {
        let room = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let mut shown = Self::default();
        for table in tables {
            shown = table;
            if room.is_none_or(|room| shown.width() <= room) {
                break;
            }
        }
        shown
    }

    /// How many columns of a terminal the widest line takes.
    fn width(&self) -> usize {
        self.to_text(0).lines().map(|line| anstream::adapter::strip_str(line).to_string().width()).max().unwrap_or(0)
    }

    /// The lines, each after `indent` blanks, without blanks at their ends.
    pub(super) fn to_text(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| Some(row.get(column)?.text.width())).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            // Blanks are only written once something stands behind them.
            let mut blanks = indent;
            for (cell, width) in row.iter().zip(&widths) {
                let rest = width - cell.text.width();
                if !cell.text.is_empty() {
                    let before = blanks + if cell.right { rest } else { 0 };
                    text.push_str(&" ".repeat(before));
                    text.push_str(&cell.style.style(&cell.text).to_string());
                    blanks = if cell.right { 0 } else { rest };
                } else {
                    blanks += width;
                }
                blanks += GAP;
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_a_terminal_shows_them() {
        let mut table = Table::default();
        table.row(["语料".into(), "1".into(), Cell::from("10 s").right(), "end".into()]);
        table.row(["tokens".into(), "".into(), Cell::from("1 s").right()]);
        table.row(["a".into(), "long".into()]);
        assert_eq!(table.to_text(1), " 语料    1     10 s  end\n tokens         1 s\n a       long\n");
    }
}
