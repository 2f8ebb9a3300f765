// SPDX-License-Identifier: Apache-2.0
// What is drawn of timelines: well formed, complete, inside the picture.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lightseq/mask/causal.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/ring.hpp"
#include "lightseq/trace/chrome_trace.hpp"
#include "lightseq/trace/gantt.hpp"
#include "support/data.hpp"

using namespace lightseq;

namespace {

Simulation simulated(auto schedule, int world, Pass pass) {
  Planner const planner(schedule, Causal{}, world, 1024 * world);
  Topology const topology{.inside = {1e11, 1e-6}, .between = {}};
  return simulate(planner, pass, {1, 8, 2, 64, 2}, topology, h100(), true);
}

/// The attributes of one element after the other: its name as "", then name and value.
using SvgElement = std::map<std::string, std::string>;

/// The elements of an SVG picture that no browser would stumble over; none if it is malformed.
std::vector<SvgElement> elements(std::string_view svg) {
  std::vector<SvgElement> found;
  std::vector<std::string> open;
  while (!svg.empty()) {
    std::size_t const begin = svg.find('<');
    if (begin == svg.npos) break;
    std::size_t const end = svg.find('>', begin);
    if (end == svg.npos) return {};
    std::string_view tag = svg.substr(begin + 1, end - begin - 1);
    svg.remove_prefix(end + 1);
    if (tag.front() == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return {};
      open.pop_back();
      continue;
    }
    bool const closed = tag.back() == '/';
    if (closed) tag.remove_suffix(1);
    std::size_t const name_end = std::min(tag.find(' '), tag.size());
    SvgElement element{{"", std::string(tag.substr(0, name_end))}};
    tag.remove_prefix(name_end);
    while (!tag.empty()) {
      std::size_t const is = tag.find("=\"");
      if (tag.front() != ' ' || is == tag.npos) return {};
      std::size_t const quote = tag.find('"', is + 2);
      if (quote == tag.npos) return {};
      element[std::string(tag.substr(1, is - 1))] = tag.substr(is + 2, quote - is - 2);
      tag.remove_prefix(quote + 1);
    }
    if (!closed) open.push_back(element[""]);
    found.push_back(element);
  }
  return open.empty() ? found : std::vector<SvgElement>{};
}

/// Reads over one JSON value; whether there is one.
bool skip_json(std::string_view& text) {
  auto const blank = [&] { text.remove_prefix(std::min(text.find_first_not_of(" \n"), text.size())); };
  auto const take = [&](char c) {
    blank();
    bool const there = !text.empty() && text.front() == c;
    if (there) text.remove_prefix(1);
    return there;
  };
  auto const quoted = [&] {
    if (!take('"')) return false;
    std::size_t const end = text.find('"');
    if (end == text.npos || text.substr(0, end).find('\\') != text.npos) return false;
    text.remove_prefix(end + 1);
    return true;
  };
  blank();
  if (text.empty()) return false;
  if (text.front() == '"') return quoted();
  bool const object = text.front() == '{';
  if (object || text.front() == '[') {
    text.remove_prefix(1);
    do {
      if (object && !(quoted() && take(':'))) return false;
      if (!skip_json(text)) return false;
    } while (take(','));
    return take(object ? '}' : ']');
  }
  std::size_t const end = std::min(text.find_first_not_of("0123456789+-.e"), text.size());
  text.remove_prefix(end);
  return end > 0;
}

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

std::size_t count(Timeline const& timeline, Activity activity) {
  std::size_t found = 0;
  for (Span const& span : timeline) found += span.activity == activity ? 1 : 0;
  return found;
}

}  // namespace

TEST_CASE("a picture of up to 64 ranks shows every span once, inside, in its rank's row and at its time") {
  for (int const world : {1, 2, 8, 17, 64})
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      Simulation const a = simulated(Ring{}, world, pass), b = simulated(Balanced{}, world, pass);
      std::string const svg =
          Gantt::svg({{"Ring <of> & more", world, a.timeline}, {"Balanced", world, b.timeline}});
      auto const drawn = elements(svg);
      REQUIRE(!drawn.empty());
      std::map<std::string, std::size_t> boxes;
      double picture_width = 0, picture_height = 0;
      std::sscanf(drawn[0].at("viewBox").c_str(), "0 0 %lf %lf", &picture_width, &picture_height);
      bool inside = true;
      double boxes_begin = picture_width, labels_end = 0;
      for (SvgElement const& e : drawn) {
        // A label's digits and letters are about 8 wide; those of the ranks begin at 8.
        if (e.at("") == "text" && e.at("class") == "label" && e.at("x") == "8")
          labels_end = 8 + 37 + 8 * static_cast<double>(std::to_string(world - 1).size());
        if (e.at("") != "rect") continue;
        ++boxes[e.at("class")];
        if (e.at("class") == "ground") continue;
        boxes_begin = std::min(boxes_begin, std::stod(e.at("x")));
        double const x = std::stod(e.at("x")), y = std::stod(e.at("y"));
        inside = inside && x >= 0 && y >= 0 && x + std::stod(e.at("width")) <= picture_width + 1e-3 &&
                 y + std::stod(e.at("height")) <= picture_height;
      }
      CHECK(inside);
      CHECK(labels_end <= boxes_begin);
      std::size_t const legend = 1;
      auto const both = [&](Activity activity) {
        return count(a.timeline, activity) + count(b.timeline, activity);
      };
      CHECK(boxes["work"] + boxes["helps"] == both(Activity::work) + 2 * legend);
      CHECK(boxes["send"] == both(Activity::send) + legend);
      CHECK(boxes["receive"] == both(Activity::receive) + legend);
      CHECK(boxes["wait"] == both(Activity::wait) + legend);
      CHECK(boxes["merge"] == both(Activity::merge) + legend);
      CHECK(count(svg, "prefers-color-scheme:dark") == 1);
      CHECK(count(svg, "Ring &lt;of&gt; &amp; more") == 1);
      CHECK(count(svg, ">rank 0<") == 2);
    }
}

TEST_CASE("of more than 64 ranks the first are drawn, and a note says which are not") {
  for (int const world : {65, 101}) {
    Timeline const timeline = simulated(Ring{}, world, Pass::forward).timeline;
    std::string const svg = Gantt::svg({{"x", world, timeline}});
    std::size_t drawn = 0;
    for (Span const& span : timeline) drawn += span.rank < 64 ? 1 : 0;
    REQUIRE(drawn <= Gantt::most_boxes);
    CHECK(count(svg, "<title>") == drawn);
    CHECK(count(svg, "class=\"label\" x=\"8\"") == 64 + 1);
    CHECK(count(svg, ">ranks 64 to " + std::to_string(world - 1) + " are not drawn<") == 1);
  }
}

namespace {

/// Spans of random lengths in the lanes of some ranks, those of a lane one after another or at a distance.
Timeline random_timeline(std::mt19937_64& random, int ranks, int spans, double longest) {
  Timeline timeline;
  std::uniform_real_distribution<double> seconds(0, longest);
  Activity const lanes[][3] = {{Activity::work, Activity::wait, Activity::merge},
                               {Activity::send, Activity::send, Activity::send},
                               {Activity::receive, Activity::receive, Activity::receive}};
  for (int rank = 0; rank < ranks; ++rank)
    for (auto const& lane : lanes) {
      double at = 0;
      for (int i = 0; i < spans; ++i) {
        if (random() % 4 == 0) at += seconds(random);
        double const end = at + seconds(random) * (random() % 8 == 0 ? 10 : 1);
        Work const work{static_cast<int>(random() % 2) * rank, rank};
        timeline.push_back({lane[random() % 3], rank, i, at, end, work, {}});
        at = end;
      }
    }
  std::shuffle(timeline.begin(), timeline.end(), random);
  return timeline;
}

}  // namespace

TEST_CASE("a timeline that is thinned keeps what is long, and covers what is short") {
  std::mt19937_64 random(test::stream_seed(91));
  for (int repeat = 0; repeat < 40; ++repeat) {
    Timeline const all = random_timeline(random, 3, 200, 1);
    double const unit = std::uniform_real_distribution<double>(0, 3)(random);
    Timeline const thin = Thinning::thinned(all, unit);
    double end = 0;
    for (Span const& span : all) end = std::max(end, span.end);
    std::map<std::pair<int, int>, Timeline> lanes;
    for (Span const& span : thin) lanes[{span.rank, lane_of(span.activity)}].push_back(span);
    for (auto const& [lane, spans] : lanes) {
      CHECK(static_cast<double>(spans.size()) <= 2 * (end / unit + 1));
      for (std::size_t i = 1; i < spans.size(); ++i) CHECK(spans[i - 1].end <= spans[i].begin);
      double longest_short = 0;
      for (Span const& s : spans)
        if (std::none_of(all.begin(), all.end(),
                         [&](Span const& a) { return a.begin == s.begin && a.end == s.end; }))
          longest_short = std::max(longest_short, s.end - s.begin);
      CHECK(longest_short <= 2 * unit);
    }
    for (Span const& span : all) {
      auto const& lane = lanes[{span.rank, lane_of(span.activity)}];
      CHECK(std::any_of(lane.begin(), lane.end(), [&](Span const& s) {
        bool const same = s.begin == span.begin && s.end == span.end && s.activity == span.activity;
        return span.end - span.begin >= unit ? same : s.begin <= span.begin && span.end <= s.end;
      }));
    }
  }
  // The kind of most of the time wins, work for others counted apart.
  Timeline const mixed{{Activity::work, 0, 0, 0, 2, {0, 0}, {}},
                       {Activity::wait, 0, 0, 2, 5, {}, {}},
                       {Activity::work, 0, 1, 5, 7, {0, 1}, {}},
                       {Activity::work, 0, 1, 7, 10, {1, 1}, {}}};
  Timeline const one = Thinning::thinned(mixed, 100);
  REQUIRE(one.size() == 1);
  CHECK(one[0].activity == Activity::work);
  CHECK(!is_for_another(one[0]));
  CHECK(one[0].end == 10);
}

TEST_CASE("a picture is bounded however many spans there are") {
  std::mt19937_64 random(test::stream_seed(91));
  Timeline const many = random_timeline(random, 90, 2000, 1e-3);
  std::string const svg = Gantt::svg({{"x", 90, many}});
  CHECK(!elements(svg).empty());
  CHECK(count(svg, "<rect") < 64 * 3 * 600);
  CHECK(svg.size() < 12'000'000);
  CHECK(count(svg, "<title>") == 0);
}

TEST_CASE("boxes are as long as their spans") {
  Timeline const timeline{{Activity::work, 0, 0, 0, 1, {0, 0}, {}},
                          {Activity::wait, 0, 0, 1, 1.5, {}, {}},
                          {Activity::work, 0, 1, 1.5, 4, {0, 1}, {}}};
  std::vector<double> widths;
  double at = 0;
  for (SvgElement const& e : elements(Gantt::svg({{"x", 1, timeline}})))
    if (e.at("") == "rect" && (e.at("class") == "work" || e.at("class") == "wait") && e.at("width") != "12") {
      widths.push_back(std::stod(e.at("width")));
      if (at > 0) CHECK(std::stod(e.at("x")) == doctest::Approx(at));
      at = std::stod(e.at("x")) + widths.back();
    }
  REQUIRE(widths.size() == 3);
  CHECK(widths[0] == doctest::Approx(2 * widths[1]));
  CHECK(widths[2] == doctest::Approx(5 * widths[1]));
}

TEST_CASE("each box is in its rank's row: work on top, then sends, then receives, and none over another") {
  constexpr int world = 3;
  Timeline timeline;
  for (int rank = 0; rank < world; ++rank)
    for (Activity const activity : {Activity::work, Activity::send, Activity::receive})
      timeline.push_back({activity, rank, 0, 0, 1, {rank, rank}, {}});
  struct Extent {
    double top, bottom;
  };
  std::map<std::string, std::vector<Extent>> boxes;
  double row_height = 0, chart_top = 0;
  for (SvgElement const& e : elements(Gantt::svg({{"x", world, timeline}}))) {
    if (e.at("") != "rect" || e.at("class") == "ground") continue;
    double const top = std::stod(e.at("y")), height = std::stod(e.at("height"));
    if (e.at("class") == "row" && row_height == 0) row_height = height, chart_top = top;
    boxes[e.at("class")].push_back({top, top + height});
  }
  for (std::size_t rank = 0; rank < world; ++rank) {
    double const top = chart_top + static_cast<double>(rank) * row_height;
    Extent const work = boxes.at("work")[rank], send = boxes.at("send")[rank],
                 receive = boxes.at("receive")[rank];
    CHECK(top <= work.top);
    CHECK(work.bottom <= send.top);
    CHECK(send.bottom <= receive.top);
    CHECK(receive.bottom <= top + row_height);
  }
}

TEST_CASE("a Chrome trace is JSON that holds every span, those of a track one behind the other") {
  for (int const world : {1, 5, 8})
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      Timeline const timeline = simulated(Balanced{}, world, pass).timeline;
      std::string const trace = chrome_trace(timeline);
      std::string_view rest = trace;
      CHECK(skip_json(rest));
      CHECK(rest == "\n");
      CHECK(count(trace, "\"ph\": \"X\"") == timeline.size());
      CHECK(count(trace, "\"process_name\"") == static_cast<std::size_t>(world));
      for (int activity = 0; activity < activities; ++activity) {
        auto const kind = static_cast<Activity>(activity);
        CHECK(count(trace, std::string("\"cat\": \"") + name(kind) + '"') == count(timeline, kind));
      }
      std::map<std::pair<int, int>, long long> end;
      bool ordered = true;
      double total = 0;
      for (std::size_t at = trace.find("{\"ph\": \"X\""); at != trace.npos;
           at = trace.find("{\"ph\": \"X\"", at + 1)) {
        int rank = 0, track = 0;
        double begin = 0, duration = 0;
        REQUIRE(std::sscanf(trace.c_str() + at,
                            "{\"ph\": \"X\", \"pid\": %d, \"tid\": %d, \"ts\": %lf, \"dur\": %lf", &rank,
                            &track, &begin, &duration) == 4);
        // In whole nanoseconds, as Perfetto reads it.
        auto const first = std::llround(1e3 * begin), length = std::llround(1e3 * duration);
        long long& last = end[{rank, track}];
        ordered = ordered && first >= last;
        CHECK(1e3 * begin == doctest::Approx(static_cast<double>(first)).epsilon(1e-12));
        last = first + length;
        total += duration;
      }
      CHECK(ordered);
      double expected = 0;
      for (Span const& span : timeline) expected += 1e6 * (span.end - span.begin);
      CHECK(std::abs(total - expected) <= 1e-3 * static_cast<double>(timeline.size()));
    }
}

TEST_CASE("a Chrome trace has the spans that begin before its origin, those of one time side by side") {
  Span const early{Activity::send, 0, 0, -2e-6, 1e-6, {}, {}};
  std::string const trace = chrome_trace({early, early});
  CHECK(trace.find("\"tid\": 1, \"ts\": -2") != trace.npos);
  CHECK(trace.find("\"tid\": 2, \"ts\": -2") != trace.npos);
}

TEST_CASE("a picture's title may be any text") {
  std::string const picture = Gantt::svg({{"a & b <c> ]]>", 1, {}}});
  CHECK(picture.find("a &amp; b &lt;c&gt; ]]&gt;<") != picture.npos);
}

TEST_CASE("an empty timeline gives an empty picture and trace") {
  CHECK(!elements(Gantt::svg({{"nothing", 2, {}}})).empty());
  std::string const trace = chrome_trace({});
  CHECK(count(trace, "\"ph\"") == 0);
}
