// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

/// Replaces the program's operator new and delete by ones that count. Only one file of a program may include
/// this header: the replacements cannot be inline, so a second one does not link.
namespace lightseq::test {

// Atomic, as compilers take it that no operator new changes a plain variable.
inline thread_local std::atomic<std::int64_t> thread_allocations = 0;
inline thread_local std::atomic<std::int64_t> thread_deallocations = 0;

/// After so many more allocations of the thread one fails; not where it is negative, nor under
/// ThreadSanitizer.
inline thread_local std::atomic<std::int64_t> allocations_left = -1;

/// Counts what the thread that made it has allocated since.
class AllocationCounter {
 public:
  std::int64_t count() const { return thread_allocations - before_; }

  /// How many more that was than it has freed.
  std::int64_t held() const { return count() - (thread_deallocations - freed_before_); }

 private:
  std::int64_t before_ = thread_allocations, freed_before_ = thread_deallocations;
};

}  // namespace lightseq::test

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LIGHTSEQ_TEST_MALLOC_HOOK
#endif
#endif

#ifdef LIGHTSEQ_TEST_MALLOC_HOOK

// clang's ThreadSanitizer suffers no other operator new, but tells of every allocation and of what is freed.
extern "C" __attribute__((no_sanitize("thread"))) void __sanitizer_malloc_hook(void const volatile*,
                                                                               std::size_t) {
  ++lightseq::test::thread_allocations;
}
extern "C" __attribute__((no_sanitize("thread"))) void __sanitizer_free_hook(void const volatile*) {
  ++lightseq::test::thread_deallocations;
}

#else

namespace lightseq::test {

// Not inlined, as g++ would take malloc's memory in operator delete for a mistake.
[[gnu::noinline]] inline void* counted_allocation(std::size_t bytes, std::size_t alignment) noexcept {
  ++thread_allocations;
  if (allocations_left >= 0 && allocations_left-- == 0) return nullptr;
  if (alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) return std::malloc(bytes > 0 ? bytes : 1);
  return std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
}

inline void* counted_allocation_or_throw(std::size_t bytes, std::size_t alignment) {
  void* const data = counted_allocation(bytes, alignment);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

[[gnu::noinline]] inline void deallocation(void* data) noexcept {
  if (data != nullptr) ++thread_deallocations;
  std::free(data);
}

}  // namespace lightseq::test

// Every form is replaced: a sanitizer brings all of them along, and would see memory of one form of new given
// to another's delete.
void* operator new(std::size_t n) { return lightseq::test::counted_allocation_or_throw(n, 1); }
void* operator new[](std::size_t n) { return lightseq::test::counted_allocation_or_throw(n, 1); }
void* operator new(std::size_t n, std::align_val_t a) {
  return lightseq::test::counted_allocation_or_throw(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a) {
  return lightseq::test::counted_allocation_or_throw(n, static_cast<std::size_t>(a));
}
void* operator new(std::size_t n, std::nothrow_t const&) noexcept {
  return lightseq::test::counted_allocation(n, 1);
}
void* operator new[](std::size_t n, std::nothrow_t const&) noexcept {
  return lightseq::test::counted_allocation(n, 1);
}
void* operator new(std::size_t n, std::align_val_t a, std::nothrow_t const&) noexcept {
  return lightseq::test::counted_allocation(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a, std::nothrow_t const&) noexcept {
  return lightseq::test::counted_allocation(n, static_cast<std::size_t>(a));
}

void operator delete(void* data) noexcept { lightseq::test::deallocation(data); }
void operator delete[](void* data) noexcept { lightseq::test::deallocation(data); }
void operator delete(void* data, std::size_t) noexcept { lightseq::test::deallocation(data); }
void operator delete[](void* data, std::size_t) noexcept { lightseq::test::deallocation(data); }
void operator delete(void* data, std::align_val_t) noexcept { lightseq::test::deallocation(data); }
void operator delete[](void* data, std::align_val_t) noexcept { lightseq::test::deallocation(data); }
void operator delete(void* data, std::size_t, std::align_val_t) noexcept {
  lightseq::test::deallocation(data);
}
void operator delete[](void* data, std::size_t, std::align_val_t) noexcept {
  lightseq::test::deallocation(data);
}
void operator delete(void* data, std::nothrow_t const&) noexcept { lightseq::test::deallocation(data); }
void operator delete[](void* data, std::nothrow_t const&) noexcept { lightseq::test::deallocation(data); }
void operator delete(void* data, std::align_val_t, std::nothrow_t const&) noexcept {
  lightseq::test::deallocation(data);
}
void operator delete[](void* data, std::align_val_t, std::nothrow_t const&) noexcept {
  lightseq::test::deallocation(data);
}

#endif
