// Self-contained HTML: escaping, tables, and a page that needs no other file.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lowp::report {

/// Text for HTML and SVG, in content and in double-quoted attributes.
std::string escape(std::string_view text);

/// What a column or plot shows and how it was measured: footnotes, in the order in which they are numbered.
struct Note {
  std::string term;
  std::string text;
};

struct Cell {
  std::string text;
  std::optional<double> value;  // a number: right-aligned, sorted by value
};

/// A table before it is text, HTML or JSON.
struct Grid {
  struct Column {
    std::string title;
    std::optional<std::size_t> note;  // index into the page's notes
  };
  std::string title;
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;  // every row has columns.size() cells
};

/// A cell with a number in a fmt pattern such as "{:.2f}"; "-" without one, "exact" or "-inf" for infinities.
Cell number_cell(std::optional<double> value, std::string_view pattern);

/// The table; a click on a head sorts where the page's script runs.
std::string html_table(const Grid& grid);

/// The whole document: title, one line about the machine, body (HTML), footnotes. Light or dark as the reader's system.
std::string html_page(const std::string& title, const std::string& about, const std::string& body,
                      const std::vector<Note>& notes);

}  // namespace lowp::report
