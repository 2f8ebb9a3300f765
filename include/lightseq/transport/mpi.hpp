// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <mpi.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/transport/agreement.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// How long ranks wait for each other. Alike on all ranks.
struct MpiOptions {
  /// How long a finish() waits for a next piece, a constructor for the other ranks' and a destructor for
  /// theirs; at most a year. A process that is stopped looks like one that computes: choose more than the
  /// longest time for which a rank may keep the others waiting, the longest step of attention among them.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
  std::int64_t piece_bytes = std::int64_t{1} << 28;  ///< larger messages are cut: MPI counts bytes in an int
};

/// One rank of an MPI communicator, for messages in host memory, used by one thread at a time. It works on a
/// duplicate, so no message of the caller's meets one of its own and the caller's error handler stays. The
/// first failure of any rank breaks all, as it does with Local: the rank that gives up tells the others what
/// it found, and their pending and later calls return peer_failed with that; one that has died or stopped is
/// missed after the time-out. MPI cannot take back what is on its way: after a failure keep the memory that
/// was posted, tensors and workspaces, until the process ends. To go on, build another communicator
/// (MPI_Comm_create_group needs the survivors alone) and a transport on it. The destructor waits for those of
/// the other ranks, no longer than the time-out, and frees the duplicate only where all have come and none
/// has failed; where an exception unwinds it or a group is open it gives up at once. A rank may send to
/// itself.
class Mpi {
 public:
  /// What Status::native says where the code is transport_failed; any other value is MPI's own error code.
  /// `said` has it in words.
  enum Failure : int {
    bad_message = -1,     ///< the peer is no rank, the size is negative or the pointer null
    group_open = -2,      ///< start() before the finish() of the last group
    group_too_large = -3  ///< more than messages_per_peer * world sends or receives, or 1024 cuts
  };
  static constexpr int messages_per_peer = 8;

  /// To be constructed by all ranks of `comm`, which may be freed afterwards. MPI must be initialised, for
  /// calls from the thread that uses this. Throws Error if it is not, if an option is out of bounds, and if
  /// not all ranks come within the time-out.
  explicit Mpi(MPI_Comm comm, MpiOptions const& options = {});
  ~Mpi();
  Mpi(Mpi const&) = delete;
  Mpi& operator=(Mpi const&) = delete;

  int rank() const noexcept { return rank_; }
  int world() const noexcept { return world_; }

  /// Posts a group's messages. MPI may move them at any time from now on, but need not before finish().
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept;

  /// Waits until the group's messages have arrived and what was sent may be overwritten. The time-out counts
  /// from the last piece that arrived or was taken.
  Status finish() noexcept;

  /// Waits for the fingerprints of all ranks, as a group of messages. After a disagreement, or where a rank
  /// cannot be constructed, all is as before.
  Status agree(Fingerprint const& fingerprint) {
    ++agreements_;
    return agree_by_messages(*this, fingerprint);
  }

  /// How many agree() was called for.
  int agreements() const noexcept { return agreements_; }

  /// Tells all ranks to stop: for a rank that gives up.
  void withdraw(Status const& why = {.code = Code::withdrawn}) noexcept {
    static_cast<void>(give_up(why, rank_));
  }

  /// The rank that failed first, as far as this one knows; -1 as long as all is well.
  int failed_rank() const noexcept { return failed_rank_; }

 private:
  static constexpr int notice_tag = 0;  // says that the sender has given up; a message's tag is larger
  static constexpr std::int64_t max_cuts = 1022;
  // Of a message's tag, its lowest bits: in how many pieces it comes, and whether it is of a batch. The
  // others tell its origin.
  static constexpr int pieces_bits = 10, batch_bit = 1 << pieces_bits, low_bits = pieces_bits + 1;

  /// What was posted: a message, or a piece of one.
  struct Piece {
    char const* label;
    int peer;
    std::int64_t message_bytes;
    int bytes;
    bool incoming;
    Origin origin;
    std::int64_t batch;
  };

  /// What a tag tells of an origin: another batch is as good as another step of another object. The lowest
  /// bit of a batch says only that it is one, as the tag does.
  static Origin told(Origin origin, std::int64_t batch) {
    origin.step += static_cast<int>(batch >> 1 & 0xfffff);
    if (origin.object >= 0) origin.object += static_cast<int>(batch >> 21 & 0xfffff);
    return origin;
  }

  /// What the rank that gives up has to say, on its way.
  struct Notice {
    Text heard, said;
  };

  std::int64_t pieces(std::int64_t bytes) const {
    return std::max<std::int64_t>(1, (bytes - 1) / options_.piece_bytes + 1);
  }
  static Status failed(int native) noexcept;
  template <class Message>
  static Status failed(int native, Message const& message) noexcept;
  int tag(Origin const& origin, std::int64_t batch, std::int64_t pieces) const;
  Origin origin(int tag, Origin const& near) const;
  template <class Message>
  Status check(std::span<Message const> messages) const noexcept;
  template <class Message>
  Status post(Message const& message) noexcept;
  Status settle(Piece const& piece, MPI_Status const& status, int error) const noexcept;
  Piece const* under_way(int peer) const noexcept;
  Status timed_out() noexcept;
  Status give_up(Status status, int culprit) noexcept;
  Status broken(char const* label) const noexcept;
  bool all_leave() noexcept;

  MpiOptions options_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int world_ = 1;
  int failed_rank_ = -1;
  Status cause_;  // as this rank knows it
  int agreements_ = 0;
  int object_bits_ = 0, step_bits_ = 0;  // of a tag; none where it has too few
  int const exceptions_ = std::uncaught_exceptions();
  bool open_ = false;
  std::unique_ptr<Notice> notice_ = std::make_unique<Notice>();  // after a failure it is MPI's

  // The first request is for the notice of a peer's failure; the request after it is for the first piece, and
  // so on. These keep the capacity that construction gave them.
  std::vector<MPI_Request> requests_;
  std::vector<Piece> posted_;
  std::vector<int> done_;             // scratch
  std::vector<MPI_Status> statuses_;  // scratch
};
static_assert(CountsAgreements<Mpi> && Withdraws<Mpi> && SoundAbilities<Mpi>);

inline Mpi::Mpi(MPI_Comm comm, MpiOptions const& options) : options_(options) {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (!initialised) fail("MPI is not initialised");
  if (options.timeout.count() < 0 || options.timeout > std::chrono::hours(24 * 366))
    fail("the time-out is ", options.timeout.count(), " ms, it must be between 0 and a year");
  if (options.piece_bytes < 1 || options.piece_bytes > std::numeric_limits<int>::max())
    fail("piece_bytes is ", options.piece_bytes, ", it must be between 1 and ",
         std::numeric_limits<int>::max());

  // MPI cannot call off a duplication: where ranks are missing it keeps what it may still write to.
  auto duplicate = std::make_unique<MPI_Comm>(MPI_COMM_NULL);
  auto const deadline = std::chrono::steady_clock::now() + options.timeout;
  MPI_Request request = MPI_REQUEST_NULL;
  int error = MPI_Comm_idup(comm, duplicate.get(), &request);
  for (int done = 0; error == MPI_SUCCESS && !done; std::this_thread::yield()) {
    bool const late = std::chrono::steady_clock::now() >= deadline;
    error = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (late && !done) {
      static_cast<void>(duplicate.release());
      fail("not every rank of the communicator has constructed its transport within ",
           options.timeout.count(), " ms");
    }
  }
  if (error != MPI_SUCCESS) fail("MPI cannot duplicate the communicator: ", failed(error).said.view());
  comm_ = *duplicate;
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &world_);
  int* largest_tag = nullptr;
  int found = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &largest_tag, &found);
  auto const tags = static_cast<unsigned>(found ? *largest_tag : 32767) + 1;
  int const bits = static_cast<int>(std::bit_width(tags)) - 1 - low_bits;
  if (bits >= 3) {  // one tells the pass
    object_bits_ = std::min((bits - 1) / 2, 10);
    step_bits_ = std::min(bits - 1 - object_bits_, 10);
  }

  auto const capacity = static_cast<std::size_t>(2 * (std::int64_t{messages_per_peer} * world_ + max_cuts));
  posted_.reserve(capacity);
  requests_.reserve(capacity + 1);
  done_.resize(capacity + 1);
  statuses_.resize(capacity + 1);
  error = MPI_Irecv(&notice_->heard, sizeof(Text), MPI_BYTE, MPI_ANY_SOURCE, notice_tag, comm_,
                    &requests_.emplace_back(MPI_REQUEST_NULL));
  if (error != MPI_SUCCESS) fail("MPI cannot receive: ", failed(error).said.view());
}

inline Mpi::~Mpi() {
  int finalised = 0;
  MPI_Finalized(&finalised);
  if (finalised) return;
  if (std::uncaught_exceptions() > exceptions_)
    withdraw({.code = Code::withdrawn, .said = "an exception unwound its transport"});
  if (open_) withdraw({.code = Code::withdrawn, .said = "it left a group open"});
  if (failed_rank_ >= 0) return;
  if (!all_leave()) {
    // Another rank's notice may yet come, and MPI would give the number of a freed communicator to another
    // one.
    static_cast<void>(notice_.release());
    return;
  }
  MPI_Cancel(&requests_[0]);
  MPI_Wait(&requests_[0], MPI_STATUS_IGNORE);
  MPI_Comm_free(&comm_);
}

/// Whether the destructors of all ranks have come within the time-out, and none has failed.
inline bool Mpi::all_leave() noexcept {
  auto const deadline = std::chrono::steady_clock::now() + options_.timeout;
  MPI_Request all = MPI_REQUEST_NULL;
  int error = MPI_Ibarrier(comm_, &all);
  for (int noticed = 0, left = 0; error == MPI_SUCCESS; std::this_thread::yield()) {
    bool const late = std::chrono::steady_clock::now() >= deadline;
    error = MPI_Test(&all, &left, MPI_STATUS_IGNORE);
    if (error == MPI_SUCCESS && left) return true;
    if (error == MPI_SUCCESS) error = MPI_Test(&requests_[0], &noticed, MPI_STATUS_IGNORE);
    if (noticed || late) break;
  }
  return false;
}

inline Status Mpi::start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
  if (failed_rank_ >= 0) return broken(label_of(sends, recvs, failed_rank_));
  if (open_) return give_up(failed(group_open), rank_);
  if (Status const status = check(sends); !status.ok()) return give_up(status, rank_);
  if (Status const status = check(recvs); !status.ok()) return give_up(status, rank_);
  open_ = true;
  for (Receive const& receive : recvs)
    if (Status const status = post(receive); !status.ok()) return give_up(status, rank_);
  for (Send const& send : sends)
    if (Status const status = post(send); !status.ok()) return give_up(status, rank_);
  return {};
}

inline Status Mpi::finish() noexcept {
  if (failed_rank_ >= 0) return broken("");
  auto deadline = std::chrono::steady_clock::now() + options_.timeout;
  auto left = static_cast<std::int64_t>(posted_.size());
  for (bool late = false;;) {
    int done = 0;
    int const error = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &done, done_.data(),
                                   statuses_.data());
    if (error != MPI_SUCCESS && error != MPI_ERR_IN_STATUS) return give_up(failed(error), rank_);
    for (int i = 0; i < done; ++i) {
      MPI_Status const& status = statuses_[static_cast<std::size_t>(i)];
      auto const index = static_cast<std::size_t>(done_[static_cast<std::size_t>(i)]);
      if (index == 0) {
        Piece const* const awaited = under_way(status.MPI_SOURCE);
        return give_up({.code = Code::peer_failed,
                        .subject = awaited == nullptr ? "" : awaited->label,
                        .peer = status.MPI_SOURCE,
                        .said = notice_->heard},
                       status.MPI_SOURCE);
      }
      Status const end =
          settle(posted_[index - 1], status, error == MPI_SUCCESS ? MPI_SUCCESS : status.MPI_ERROR);
      if (!end.ok()) return give_up(end, rank_);
    }
    left -= done;
    if (left == 0) {
      posted_.clear();
      requests_.resize(1);
      open_ = false;
      return {};
    }
    auto const now = std::chrono::steady_clock::now();
    if (done > 0) {
      deadline = now + options_.timeout;
      late = false;
      continue;
    }
    if (late) return timed_out();
    late = now >= deadline;
    std::this_thread::yield();  // ranks may share a core
  }
}

/// What `native` means, one of our own or of MPI's.
inline Status Mpi::failed(int native) noexcept {
  Status status{.code = Code::transport_failed, .native = native};
  char words[MPI_MAX_ERROR_STRING] = "";
  int size = 0;
  if (native == bad_message)
    status.said = unsound_message;
  else if (native == group_open)
    status.said = call_under_way;
  else if (native == group_too_large)
    status.said = "a group has more messages, or a larger one, than fit";
  else if (MPI_Error_string(native, words, &size) == MPI_SUCCESS)
    status.said = words;
  return status;
}

/// The same of a message.
template <class Message>
Status Mpi::failed(int native, Message const& message) noexcept {
  Status status = failed(native);
  status.subject = message.label;
  status.step = message.step;
  status.peer = message.peer;
  return status;
}

/// A message's tag: in how many pieces it comes, whether of a batch, and from which call, as far as there are
/// bits for it.
inline int Mpi::tag(Origin const& given, std::int64_t batch, std::int64_t pieces) const {
  Origin const origin = told(given, batch);
  int call = 0;
  if (origin.object >= 0 && object_bits_ > 0) {
    int const object = origin.object % ((1 << object_bits_) - 1) + 1;
    int const step = origin.step & ((1 << step_bits_) - 1);
    call = (object << step_bits_ | step) << 1 | (origin.backward ? 1 : 0);
  }
  return call << low_bits | (batch != 0 ? batch_bit : 0) | static_cast<int>(pieces);
}

/// The origin that a tag tells: of the objects and steps that may be meant those next to `near`.
inline Origin Mpi::origin(int tag, Origin const& near) const {
  int const call = tag >> low_bits;
  if (call == 0) return {};
  auto const next_to = [](int own, int rest, int count) {
    int const ahead = ((rest - own) % count + count) % count;
    return 2 * ahead > count && own + ahead >= count ? own + ahead - count : own + ahead;
  };
  int const steps = 1 << step_bits_;
  return {next_to(near.object, (call >> (step_bits_ + 1)) - 1, (1 << object_bits_) - 1), (call & 1) == 1,
          next_to(near.step, (call >> 1) % steps, steps)};
}

/// Whether a group's messages in one direction can be posted.
template <class Message>
Status Mpi::check(std::span<Message const> messages) const noexcept {
  std::int64_t cuts = 0;
  for (Message const& message : messages) {
    if (!is_sound(message, world_)) return failed(bad_message, message);
    cuts = std::min(cuts + pieces(message.bytes) - 1, max_cuts + 1);
  }
  if (static_cast<std::int64_t>(messages.size()) > std::int64_t{messages_per_peer} * world_ ||
      cuts > max_cuts)
    return failed(group_too_large);
  return {};
}

/// Posts a message in pieces, the odd one first: with the tag, the number of pieces, its size tells the
/// receiver the size of the whole message.
template <class Message>
Status Mpi::post(Message const& message) noexcept {
  constexpr bool incoming = std::is_same_v<Message, Receive>;
  std::int64_t const count = pieces(message.bytes);
  std::int64_t offset = 0, size = message.bytes - (count - 1) * options_.piece_bytes;
  for (std::int64_t i = 0; i < count; ++i) {
    int const bytes = static_cast<int>(size);
    posted_.push_back(
        {message.label, message.peer, message.bytes, bytes, incoming, message.origin(), message.batch});
    MPI_Request& request = requests_.emplace_back(MPI_REQUEST_NULL);
    int error;
    if constexpr (incoming)
      error = MPI_Irecv(message.bytes > 0 ? static_cast<std::byte*>(message.data) + offset : nullptr, bytes,
                        MPI_BYTE, message.peer, MPI_ANY_TAG, comm_, &request);
    else
      error =
          MPI_Isend(message.bytes > 0 ? static_cast<std::byte const*>(message.data) + offset : nullptr, bytes,
                    MPI_BYTE, message.peer, tag(message.origin(), message.batch, count), comm_, &request);
    if (error != MPI_SUCCESS) return failed(error, message);
    offset += size;
    size = options_.piece_bytes;
  }
  return {};
}

/// How a piece ended.
inline Status Mpi::settle(Piece const& piece, MPI_Status const& status, int error) const noexcept {
  Status end;
  int error_class = MPI_SUCCESS, bytes = piece.bytes;
  if (error != MPI_SUCCESS) MPI_Error_class(error, &error_class);
  if (error_class != MPI_SUCCESS && error_class != MPI_ERR_TRUNCATE) end = failed(error);
  end.subject = piece.label;
  end.step = piece.origin.step;
  end.peer = piece.peer;
  if (!end.ok() || !piece.incoming) return end;

  Origin const awaited = told(piece.origin, piece.batch), sent = origin(status.MPI_TAG, awaited);
  std::int64_t const count = status.MPI_TAG & (batch_bit - 1);
  bool const of_batch = (status.MPI_TAG & batch_bit) != 0, awaits_batch = piece.batch != 0;
  MPI_Get_count(&status, MPI_BYTE, &bytes);
  bool const other_size =
      error_class != MPI_SUCCESS || bytes != piece.bytes || count != pieces(piece.message_bytes);
  // What a constructor sends says no call.
  bool const constructor = object_bits_ > 0 && (sent.object < 0) != (piece.origin.object < 0);
  if (of_batch != awaits_batch || !same_call(sent, awaited) || (other_size && constructor)) {
    end.code = awaits_batch ? Code::other_batch : Code::out_of_order;
    end.other = of_batch ? "a message of packed documents" : "a message";
    end.have = (of_batch ? Origin::unknown() : sent).number();
    end.need = piece.origin.number();
    end.rank = rank_;
  } else if (other_size) {
    end.code = Code::size_mismatch;
    end.have = (count - 1) * options_.piece_bytes + bytes;
    end.need = piece.message_bytes;
  }
  return end;
}

/// What this rank waits for: a message of the peer, else one that is missing, else one that was not taken,
/// else any of the group's.
inline Mpi::Piece const* Mpi::under_way(int peer) const noexcept {
  Piece const* found = nullptr;
  int most = -1;
  for (std::size_t i = 0; i < posted_.size(); ++i) {
    bool const open = requests_[i + 1] != MPI_REQUEST_NULL;
    int const weight = 4 * open + 2 * (posted_[i].peer == peer) + posted_[i].incoming;
    if (weight <= most) continue;
    found = &posted_[i];
    most = weight;
  }
  return found;
}

/// Blames a peer whose message is missing, else one that did not take what was sent to it.
inline Status Mpi::timed_out() noexcept {
  Piece const* const blamed = under_way(-1);
  return give_up({.code = Code::timeout,
                  .subject = blamed->label,
                  .need = options_.timeout.count(),
                  .step = blamed->origin.step,
                  .peer = blamed->peer},
                 rank_);
}

/// Breaks this rank if it is not yet broken, tells the others if it is the culprit, lets go of what was
/// posted, and returns `status`.
inline Status Mpi::give_up(Status status, int culprit) noexcept {
  status.rank = rank_;
  if (failed_rank_ >= 0) return status;
  failed_rank_ = culprit;
  cause_ = status;
  notice_->said = status.text();
  MPI_Request request = MPI_REQUEST_NULL;
  for (int peer = 0; peer < world_ && culprit == rank_; ++peer)
    if (peer != rank_ &&
        MPI_Isend(&notice_->said, sizeof(Text), MPI_BYTE, peer, notice_tag, comm_, &request) == MPI_SUCCESS)
      MPI_Request_free(&request);
  for (std::size_t i = 0; i < requests_.size(); ++i)
    if (requests_[i] != MPI_REQUEST_NULL) {
      if (i == 0 || posted_[i - 1].incoming) MPI_Cancel(&requests_[i]);
      MPI_Request_free(&requests_[i]);
    }
  posted_.clear();
  requests_.clear();
  open_ = false;
  static_cast<void>(notice_.release());
  return status;
}

/// What a call says after a failure: this rank's own again, or whose it was.
inline Status Mpi::broken(char const* label) const noexcept {
  Status status = cause_;
  if (failed_rank_ != rank_) status.subject = label;
  return status;
}

}  // namespace lightseq
