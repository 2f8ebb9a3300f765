// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "examples/apps/simulate/tables.hpp"

/// A report of one page, for wide and narrow screens, light and dark.
namespace lightseq::simulator {

constexpr char const* report_head =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>Attention over a split sequence</title>\n<style>\n"
    ":root{color-scheme:light dark}\n"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem;"
    "background:#fff;color:#1f2328}\n"
    "h1{font-size:1.5rem}h2{font-size:1.2rem}code{overflow-wrap:anywhere}\n"
    ".wide{overflow-x:auto}.wide svg{min-width:34rem}.hint{display:none;margin:.5rem 0 0;font-size:.85rem}\n"
    "table{border-collapse:collapse}td,th{padding:.3rem .6rem;text-align:right;"
    "border-bottom:1px solid #8886}td{white-space:nowrap}th{vertical-align:bottom}\n"
    "td:first-child,th:first-child{text-align:left;white-space:normal;min-width:10rem;overflow-wrap:break-"
    "word}"
    "summary{cursor:pointer}.note{font-size:.85rem}\n"
    "@media(max-width:62rem){.hint{display:block}}\n"
    "@media(max-width:40rem){table{font-size:.85rem}td,th{padding:.3rem}ul{padding-left:1rem}}\n"
    "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}}\n"
    "</style>\n</head>\n<body>\n<h1>Attention over a split sequence</h1>\n";

/// What scrolls sideways on a narrow screen, which says so there.
inline std::string wide(std::string const& what, std::string const& content) {
  return "<p class=\"hint\">\u2194 Scroll sideways to see all of the " + what +
         ".</p>\n<div class=\"wide\">\n" + content + "</div>\n";
}

/// Text that may hold what means something in HTML; a line may break after a colon.
inline std::string html_text(std::string const& plain) {
  std::string safe;
  for (char const c : plain)
    safe += c == '<'   ? "&lt;"
            : c == '>' ? "&gt;"
            : c == '&' ? "&amp;"
            : c == ':' ? ":<wbr>"
                       : std::string(1, c);
  return safe;
}

inline std::string html_row(char const* tag, std::vector<std::string> const& cells) {
  std::string text = "<tr>";
  for (std::string const& cell : cells)
    text += std::string("<") + tag + ">" + html_text(cell) + "</" + tag + ">";
  return text + "</tr>\n";
}

inline std::string html_rows(Table const& table) {
  std::string rows = "<table>\n" + html_row("th", table.columns);
  for (Table::Row const& row : table.rows) rows += html_row("td", row.cells);
  return rows + "</table>";
}

/// The table, the sentences on its first row, and those on the others to unfold.
inline std::string html_table(Table const& table, std::string const& legend) {
  std::string first, others;
  for (Table::Row const& row : table.rows) {
    std::string& list = &row == &table.rows.front() ? first : others;
    list += "<li><b>" + html_text(row.cells.front()) + "</b><ul>";
    for (std::string const& sentence : row.below) list += "<li>" + html_text(sentence) + "</li>";
    list += "</ul></li>\n";
  }
  std::string text = wide("table", html_rows(table)) + "<p class=\"note\">" + html_text(legend) +
                     ".</p>\n<ul>\n" + first + "</ul>\n";
  if (!others.empty())
    text += "<details><summary>The others</summary>\n<ul>\n" + others + "</ul></details>\n";
  return text;
}

/// What was asked, in words.
inline std::string case_text(Case const& c) {
  auto const gbs = [](Link const& link) { return rounded(link.bytes_per_second / 1e9); };
  return sentence(c.problem.seqlen, " tokens on ", c.world, c.world == 1 ? " GPU, " : " GPUs, ",
                  c.topology.ranks_per_node, " in a node; batch ", c.problem.batch, "; ", c.problem.heads,
                  " query and ", c.problem.kv_heads, " key/value heads of dim ", c.extents.head_dim, ", ",
                  c.ends.empty() ? "mask " + c.mask : documents_text(c), ". ", gbs(c.topology.inside),
                  " GB/s inside nodes, ", gbs(c.topology.between),
                  " GB/s between them. Simulated, not measured.");
}

}  // namespace lightseq::simulator
