// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <iterator>
#include <locale>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/trace/thinned.hpp"
#include "lightseq/trace/timeline.hpp"

namespace lightseq {

/// One chart of a picture.
struct GanttChart {
  std::string title;
  int world = 1;
  Timeline timeline;
};

/// A Gantt chart of ranks as SVG, several of them below each other on one scale of time, which ends where
/// the last one does. Each rank is a row: above what it computes, below its sends and its receives. It is
/// readable on light and on dark ground, whichever the reader prefers, and names each box when pointed at.
/// Its size is bounded: of more than `most_ranks` ranks the first ones are drawn, with a note, and of more
/// than `most_boxes` spans those that are too short to see become one with their neighbours, without names.
class Gantt {
 public:
  static constexpr int most_ranks = 64;
  static constexpr std::size_t most_boxes = 30000;

  static std::string svg(std::vector<GanttChart> const& charts) { return Gantt(charts).svg_.str(); }

 private:
  static constexpr double width = 640, right = 12, title_height = 30, note_height = 20, gap = 10;

  explicit Gantt(std::vector<GanttChart> const& charts) {
    double height = 64;
    std::size_t most = 1;
    for (GanttChart const& chart : charts) most = std::max(most, static_cast<std::size_t>(rows_of(chart)));
    row_ = most <= 16 ? 24 : 12;
    left_ = 50 + 8 * static_cast<double>(std::to_string(most - 1).size());
    for (GanttChart const& chart : charts) {
      height += title_height + row_ * rows_of(chart) + (rows_of(chart) < chart.world ? note_height : 0) + gap;
      for (Span const& span : chart.timeline) until_ = std::max(until_, span.end);
    }
    svg_.imbue(std::locale::classic());
    svg_.precision(6);
    svg_ << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << ' ' << height
         << "\" width=\"100%\" role=\"img\" aria-label=\"Gantt chart\">\n"
         << style << "<rect class=\"ground\" width=\"" << width << "\" height=\"" << height << "\"/>\n";
    double y = 4;
    for (GanttChart const& chart : charts) y = draw(chart, y) + gap;
    legend(y);
    svg_ << "</svg>\n";
  }

  double x(double seconds) const {
    return left_ + (until_ > 0 ? seconds / until_ : 0) * (width - left_ - right);
  }

  /// Text that may hold what means something in SVG.
  static std::string escaped(std::string const& plain) {
    std::string safe;
    for (char const c : plain)
      if (c == '<')
        safe += "&lt;";
      else if (c == '>')
        safe += "&gt;";
      else if (c == '&')
        safe += "&amp;";
      else
        safe += c;
    return safe;
  }

  static int rows_of(GanttChart const& chart) { return std::min(chart.world, most_ranks); }

  /// Draws a chart from `top` on; where it ends.
  double draw(GanttChart const& chart, double top) {
    svg_ << "<text class=\"title\" x=\"8\" y=\"" << top + 19 << "\">" << escaped(chart.title) << "</text>\n";
    top += title_height;
    int const rows = rows_of(chart);
    for (int rank = 0; rank < rows; ++rank) {
      double const y = top + rank * row_;
      if (rank % 2 == 0) box("row", left_, y, width - left_ - right, row_, "");
      svg_ << "<text class=\"label\" x=\"8\" y=\"" << y + row_ / 2 + 4
           << (row_ < 24 ? "\" style=\"font-size:10px" : "") << "\">rank " << rank << "</text>\n";
    }
    Timeline drawn;
    std::copy_if(chart.timeline.begin(), chart.timeline.end(), std::back_inserter(drawn),
                 [rows](Span const& span) { return span.rank < rows; });
    bool const named = drawn.size() <= most_boxes;
    if (!named) drawn = Thinning::thinned(std::move(drawn), until_ * 2 / (width - left_ - right));
    for (Span const& span : drawn) draw(span, top + span.rank * row_, named);
    top += rows * row_;
    if (rows == chart.world) return top;
    svg_ << "<text class=\"label\" x=\"8\" y=\"" << top + 15 << "\">ranks " << rows << " to "
         << chart.world - 1 << " are not drawn</text>\n";
    return top + note_height;
  }

  void draw(Span const& span, double y, bool named) {
    double const unit = row_ / 24;
    std::string const kind = is_for_another(span) ? "helps" : name(span.activity);
    double offset = 2, height = 12;
    if (span.activity == Activity::send) offset = 15, height = 3.5;
    if (span.activity == Activity::receive) offset = 19, height = 3.5;
    if (span.activity == Activity::exchange) offset = 15, height = 7.5;
    double const begin = x(span.begin), wide = x(span.end) - begin;
    box(kind, begin, y + offset * unit, wide, height * unit, named ? tip(span) : "");
    if (span.activity != Activity::work || row_ < 24) return;
    Text const label = mark(span.work, span.rank);
    if (named && wide > 7.0 * static_cast<double>(label.view().size()) + 2)
      svg_ << "<text class=\"inside\" x=\"" << begin + wide / 2 << "\" y=\"" << y + 12 << "\">"
           << label.view() << "</text>\n";
  }

  static std::string tip(Span const& span) {
    return "rank " + std::to_string(span.rank) + ", step " + std::to_string(span.step) + ": " + text(span);
  }

  void box(std::string const& kind, double at_x, double y, double wide, double height,
           std::string const& tip) {
    svg_ << "<rect class=\"" << kind << "\" x=\"" << at_x << "\" y=\"" << y << "\" width=\"" << wide
         << "\" height=\"" << height;
    if (tip.empty())
      svg_ << "\"/>\n";
    else
      svg_ << "\"><title>" << escaped(tip) << "</title></rect>\n";
  }

  void legend(double y) {
    double const scale = until_ < 1e-3 ? 1e6 : until_ < 1 ? 1e3 : 1;
    char const* const unit = scale > 1e3 ? " us" : scale > 1 ? " ms" : " s";
    svg_ << "<text class=\"label\" x=\"" << left_ << "\" y=\"" << y + 6 << "\">0</text>\n"
         << "<text class=\"label end\" x=\"" << width - right << "\" y=\"" << y + 6 << "\">";
    svg_.precision(4);
    svg_ << scale * until_ << unit << "</text>\n";
    svg_.precision(6);
    double at = left_;
    for (auto const& [kind, what, wide] :
         {Entry{"work", "own queries", 110}, Entry{"helps", "another's", 88}, Entry{"merge", "merge", 66},
          Entry{"wait", "waits", 60}, Entry{"send", "sends", 64}, Entry{"receive", "receives", 80}}) {
      box(kind, at, y + 22, 12, 12, "");
      svg_ << "<text class=\"label\" x=\"" << at + 17 << "\" y=\"" << y + 32 << "\">" << what << "</text>\n";
      at += wide;
    }
  }

  struct Entry {
    char const* kind;
    char const* what;
    double wide;
  };

  static constexpr char const* style =
      "<style>"
      "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}"
      ".inside{font-size:11px;text-anchor:middle;fill:#fff}.end{text-anchor:end}"
      ".ground{fill:#fff}.row{fill:#f1f3f6}.work{fill:#2f6fb5}.helps{fill:#b4561c}.merge{fill:#7a4fb0}"
      ".wait{fill:#d3d8de}.send,.exchange{fill:#2c8a57}.receive{fill:#c2418a}"
      "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.row{fill:#171d26}"
      ".work{fill:#3f7fc4}.helps{fill:#c4662a}.merge{fill:#9a72d0}.wait{fill:#39424e}"
      ".send,.exchange{fill:#3fae72}.receive{fill:#dd6aa8}.inside{fill:#fff}}"
      "</style>\n";

  std::ostringstream svg_;
  double row_ = 24;
  double left_ = 58;  ///< of all boxes: before them stand the ranks
  double until_ = 0;
};

}  // namespace lightseq
