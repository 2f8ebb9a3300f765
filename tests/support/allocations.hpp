// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

/// Replaces the program's operator new and delete by ones that count. Only one file of a program may include
/// this header: the replacements cannot be inline, so a second one does not link.
namespace lightseq::test {

inline thread_local std::int64_t thread_allocations = 0;

/// Counts what the thread that made it has allocated since.
class AllocationCounter {
 public:
  std::int64_t count() const { return thread_allocations - before_; }

 private:
  std::int64_t before_ = thread_allocations;
};

inline void* counted_allocation(std::size_t bytes, std::size_t alignment) noexcept {
  ++thread_allocations;
  if (alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) return std::malloc(bytes > 0 ? bytes : 1);
  return std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
}

inline void* counted_allocation_or_throw(std::size_t bytes, std::size_t alignment) {
  void* const data = counted_allocation(bytes, alignment);
  if (data == nullptr) throw std::bad_alloc();
  return data;
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

void operator delete(void* data) noexcept { std::free(data); }
void operator delete[](void* data) noexcept { std::free(data); }
void operator delete(void* data, std::size_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t) noexcept { std::free(data); }
void operator delete(void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete[](void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete(void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }
void operator delete[](void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }
void operator delete(void* data, std::nothrow_t const&) noexcept { std::free(data); }
void operator delete[](void* data, std::nothrow_t const&) noexcept { std::free(data); }
void operator delete(void* data, std::align_val_t, std::nothrow_t const&) noexcept { std::free(data); }
void operator delete[](void* data, std::align_val_t, std::nothrow_t const&) noexcept { std::free(data); }
