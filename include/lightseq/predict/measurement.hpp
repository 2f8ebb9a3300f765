// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/json_reader.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/predict/compute_model.hpp"
#include "lightseq/schedule/payload.hpp"

/// What a bench tells of a device.
namespace lightseq {

/// What a kernel does that a bench measures.
enum class Measured {
  attention,  ///< of whole sequences
  merge,      ///< adds a result of another rank's
  zeroing     ///< of the memory in which a result is summed up
};

/// What a bench measured of one kernel.
struct Measurement {
  Pass pass = Pass::forward;
  bool causal = false;  ///< else under a full mask
  bool carry = false;   ///< continued from a partial result and wrote one
  std::int64_t seqlen = 0;
  Extents extents = {};
  double seconds = 0;
  Measured what = Measured::attention;
  Payload payload = Payload::out;  ///< that is merged or zeroed
  bool exchange = false;           ///< of attention: messages of the device travelled all the time

  /// What the work of attention is made of, in tiles of so many rows; 0: in pairs.
  ComputeModel::WorkSize size(std::int64_t tile) const {
    ComputeModel::WorkSize size;
    auto const rows = static_cast<double>(seqlen),
               tiles = static_cast<double>(tile > 0 ? tiles_of(seqlen, tile) : 0);
    size.pairs = causal ? rows * (rows + 1) / 2 : rows * rows;
    size.q_rows = size.kv_rows = seqlen;
    size.continues = carry;
    if (tile > 0) size.count_tiles(causal ? tiles * (tiles + 1) / 2 : tiles * tiles, tile);
    return size;
  }

  /// Seconds that a model predicts for it where an exchange takes `exchange_units` multiprocessors.
  double predicted(ComputeModel const& model, int exchange_units = 0) const {
    if (what == Measured::merge) return model.merge_seconds(payload, seqlen, extents);
    if (what == Measured::zeroing) return model.zeroing_seconds(payload, seqlen, extents);
    return model.work_seconds(size(model.units > 0 ? model.tile : 0), extents, pass,
                              exchange ? exchange_units : 0);
  }

  /// "forward causal", "backward full beside messages", "merge of out"
  std::string name() const {
    if (what != Measured::attention)
      return sentence(what == Measured::merge ? "merge of " : "zeroing of ", lightseq::name(payload));
    return sentence(lightseq::name(pass), causal ? " causal" : " full", carry ? " carry" : "",
                    exchange ? " beside messages" : "");
  }
};

/// One line of a bench: its members, and what is said where one is missing or wrong.
class BenchLine {
 public:
  /// Throws Error on what is not an object of one line.
  BenchLine(std::string_view text, int number)
      : number_(number), members_(JsonReader(text, sentence("calibration, line ", number)).members()) {}

  bool has(char const* key) const { return members_.count(key) > 0; }
  bool is(char const* key, std::string_view text) const { return has(key) && this->text(key) == text; }

  std::string const& text(char const* key) const {
    auto const found = members_.find(key);
    if (found == members_.end()) wrong("there is no \"", key, '"');
    return found->second;
  }

  double positive(char const* key) const {
    std::string const& given = text(key);
    double result = 0;
    auto const [stop, error] = std::from_chars(given.data(), given.data() + given.size(), result);
    if (error != std::errc{} || stop != given.data() + given.size() || !(result > 0) || std::isinf(result))
      wrong('"', key, "\" is ", given, ", it must be a positive number");
    return result;
  }

  std::int64_t whole(char const* key) const {
    double const size = positive(key);
    if (size != std::floor(size) || size > 1e9)
      wrong('"', key, "\" is ", text(key), ", it must be a whole number up to 1e9");
    return static_cast<std::int64_t>(size);
  }

  /// What the line says of a flag; false where it says nothing.
  bool flag(char const* key) const {
    return has(key) && choice<bool>(key, {{"true", true}, {"false", false}});
  }

  /// Of values with names the one that the line has.
  template <class Value>
  Value choice(char const* key, std::initializer_list<std::pair<char const*, Value>> values) const {
    std::string names;
    for (auto const& [name, value] : values) {
      if (is(key, name)) return value;
      names.append(names.empty() ? "" : ", ").append(name);
    }
    wrong('"', key, "\" is ", text(key), ", it must be one of ", names);
  }

  template <class... Parts>
  [[noreturn]] void wrong(Parts const&... parts) const {
    fail("calibration, line ", number_, ": ", parts...);
  }

 private:
  int number_;
  JsonMembers members_;
};

/// The seqlen and extents that a line says. Throws Error where they overflow.
inline Measurement sizes_of(BenchLine const& line) {
  Measurement m;
  m.seqlen = line.whole("seqlen");
  Extents& e = m.extents;
  e = {line.whole("batch"), line.whole("heads"), line.whole(line.has("kv_heads") ? "kv_heads" : "heads"),
       line.whole("dim")};
  if (checked_product(e.batch, m.seqlen, std::max(e.heads, e.kv_heads), e.head_dim, most_bytes_an_element) <
      0)
    line.wrong("batch ", e.batch, " x seqlen ", m.seqlen, " x heads ", std::max(e.heads, e.kv_heads),
               " x dim ", e.head_dim, " overflows 63 bits");
  return m;
}

/// The lines of bench_cuda_kernel for a head dim; lines of a backward say "pass": "backward":
///   {"mask": "full", "dim": 128, "batch": 1, "seqlen": 8192, "heads": 32, "kv_heads": 8, "carry": false,
///    "sustained": 680.1, ...}
/// sustained being TFLOP/s. With "exchange": true messages of the device travelled all the time. Lines of
/// merges and of zeroing, which another bench may add, say the milliseconds of a kernel for the rows of so
/// many tokens:
///   {"kernel": "merge", "payload": "out", "dim": 128, "batch": 1, "seqlen": 8192, "heads": 32, "kv_heads":
///    8, "ms": 0.58}
///   {"kernel": "zeroing", "payload": "dkv", ..., "ms": 0.05}
/// Payloads are out, dq and dkv. Empty lines, other head dims, masks but full and causal and keys of several
/// parts are passed over. Throws Error, with the line's number, on anything else.
inline std::vector<Measurement> read_measurements(std::string_view text, std::int64_t head_dim) {
  std::vector<Measurement> measurements;
  for (int number = 1; !text.empty(); ++number) {
    std::size_t const end = std::min(text.find('\n'), text.size());
    std::string_view const written = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (written.find_first_not_of(" \t\r") == written.npos) continue;
    BenchLine const line(written, number);
    Measurement m = sizes_of(line);
    if (line.has("kernel"))
      m.what = line.choice<Measured>(
          "kernel",
          {{"attention", Measured::attention}, {"merge", Measured::merge}, {"zeroing", Measured::zeroing}});
    if (m.what == Measured::attention) {
      double const rate = 1e12 * line.positive("sustained");
      std::string const& mask = line.text("mask");
      if ((mask != "full" && mask != "causal") || (line.has("parts") && !line.is("parts", "1"))) continue;
      m.causal = mask == "causal";
      m.carry = line.flag("carry");
      m.exchange = line.flag("exchange");
      if (line.has("pass"))
        m.pass = line.choice<Pass>("pass", {{"forward", Pass::forward}, {"backward", Pass::backward}});
      m.seconds = m.size(0).pairs * ComputeModel::pair_flops(m.extents, m.pass) / rate;
    } else {
      m.payload = line.choice<Payload>("payload",
                                       {{"out", Payload::out}, {"dq", Payload::dq}, {"dkv", Payload::dkv}});
      m.seconds = 1e-3 * line.positive("ms");
    }
    if (m.extents.head_dim == head_dim) measurements.push_back(m);
  }
  return measurements;
}

}  // namespace lightseq
