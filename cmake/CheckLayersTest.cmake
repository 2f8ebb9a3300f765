# SPDX-License-Identifier: Apache-2.0
# CheckLayers.cmake must find every kind of fault: each is planted alone into a tree that is right.
#   cmake -D SCRATCH=<folder to write in> -P CheckLayersTest.cmake
cmake_minimum_required(VERSION 3.25)
set(head "// SPDX-License-Identifier: Apache-2.0\n#pragma once\n")

# Lays the tree anew, puts `text` into the header at `path`, and expects `sentence` of CheckLayers.cmake.
function(expect sentence path text)
  file(REMOVE_RECURSE ${SCRATCH})
  foreach(folder IN ITEMS core mask partition schedule transport trace predict kernel kernel/host kernel/gpu kernel/sm80
                         kernel/sm90 exec checkpoint)
    file(WRITE ${SCRATCH}/include/lightseq/${folder}/a.hpp "${head}#include <vector>\n// may exit() in a comment\n")
    file(WRITE ${SCRATCH}/include/lightseq/${folder}/a.cuh "${head}#include <cuda_runtime.h>\n")
  endforeach()
  file(WRITE ${SCRATCH}/include/lightseq/dist_attn.hpp "${head}#include \"lightseq/exec/a.hpp\"\n")
  file(WRITE ${SCRATCH}/include/lightseq/${path} "${text}")
  execute_process(COMMAND ${CMAKE_COMMAND} -D ROOT=${SCRATCH} -P ${CMAKE_CURRENT_LIST_DIR}/CheckLayers.cmake
                  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(REGEX REPLACE "[ \n]+" " " output "${output}")
  string(FIND "${output}" "${sentence}" found)
  if(found EQUAL -1)
    message(SEND_ERROR "${path} holding\n${text}\nshould give '${sentence}', but CheckLayers.cmake said: ${output}")
  endif()
  if(result EQUAL 0 AND NOT sentence MATCHES "keep to their layers")
    message(SEND_ERROR "CheckLayers.cmake reported '${sentence}' and exited with 0")
  endif()
endfunction()

function(expect_line sentence path line)
  expect("${sentence}" ${path} "${head}${line}\n")
endfunction()

expect_line("headers keep to their layers" dist_attn.hpp "#include \"lightseq/exec/a.hpp\"")
expect_line("headers keep to their layers" testing/a.hpp "#include \"lightseq/dist_attn.hpp\"")
expect_line("headers keep to their layers" exec/a.cuh "#include \"lightseq/kernel/sm90/a.cuh\"")
expect_line("headers keep to their layers" kernel/sm90/a.cuh "#include \"lightseq/kernel/a.hpp\"")
expect_line("headers keep to their layers" transport/nccl.cuh "#include <nccl.h>\n#include <cuda_runtime.h>")

# Each folder includes one that it may not.
foreach(pair IN ITEMS core:mask mask:partition partition:mask schedule:trace trace:mask predict:kernel kernel:schedule
                      kernel:kernel/host kernel/host:kernel/gpu kernel/gpu:kernel/sm80 kernel/sm80:kernel/sm90
                      kernel:transport transport:schedule transport:kernel exec:predict checkpoint:kernel)
  string(REPLACE ":" ";" pair ${pair})
  list(GET pair 0 from)
  list(GET pair 1 to)
  expect_line("${from}/a.hpp:3: ${from}/ includes lightseq/${to}/a.hpp, but may include only" ${from}/a.hpp
              "#include \"lightseq/${to}/a.hpp\"")
endforeach()
expect_line("which stands above all folders" exec/a.hpp "#include \"lightseq/dist_attn.hpp\"")
expect_line("does not exist" exec/a.hpp "#include \"lightseq/core/b.hpp\"")
expect_line("are included as \"lightseq/...\"" exec/a.hpp "#include \"a.hpp\"")
expect_line("includes lightseq/kernel/a.cuh" exec/a.hpp "#include \"lightseq/kernel/a.cuh\"")
expect_line("any C++ compiler reads, includes <cuda_runtime.h>" exec/a.hpp "#include <cuda_runtime.h>")
expect_line("only transport/nccl.cuh includes <nccl.h>" exec/a.hpp "#include <nccl.h>")
expect_line("only transport/mpi.hpp includes <mpi.h>" exec/a.hpp "#include <mpi.h>")
foreach(name IN ITEMS iostream cub/cub.cuh thrust/device_vector.h cooperative_groups.h cassert)
  expect_line("<${name}> is not for headers" kernel/a.cuh "#include <${name}>")
endforeach()
expect_line("core/a.hpp:4: exit(): a header neither" core/a.hpp "#include <cstdlib>\ninline void f() { std::exit(1) }")
expect_line("printf(): a header neither" kernel/a.cuh "__device__ void f() { printf(\"x\") }")
expect_line("assert(): a header neither" core/a.hpp "inline void f() { assert(true) }")
expect_line("std::cerr: a header neither" core/a.hpp "inline void f() { std::cerr << 1 }")
expect_line("NDEBUG: a header neither" core/a.hpp "#ifndef NDEBUG")
expect_line("does not say what extra/ may include" extra/a.hpp "")
expect_line("only .hpp and .cuh files" core/a.inl "")
expect("begins with its SPDX line and #pragma once" core/a.hpp "#pragma once\n")

# A type parameter of kernel/ whose members are used is constrained.
foreach(use IN ITEMS "void f(Block const& block) { block.size = 1 }" "void f(Block* block) { block->size = 1 }"
                     "int f() { return Block::size }" "void f(int,\n       Block& block) {\n  block.size = 1\n}"
                     "struct A {\n  Block const& block\n  int f() { return block.size }\n}")
  expect_line("members of the type parameter Block are used, which no concept constrains" kernel/gpu/a.cuh
              "template <int Size, class Block>\n${use}")
  expect_line("members of the type parameter Block" kernel/a.hpp "template <int Size,\n          typename Block>\n${use}")
  expect_line("headers keep to their layers" kernel/gpu/a.cuh "template <int Size, Sized Block>\n${use}")
  expect_line("headers keep to their layers" core/a.hpp "template <class Block>\n${use}")
  expect_line("headers keep to their layers" kernel/gpu/a.cuh "template <class Block>\nstruct B {\n}\n${use}")
endforeach()
expect_line("headers keep to their layers" kernel/gpu/a.cuh
            "template <class Block>\nconcept Sized = requires(Block const& block) {\n  block.size\n}")
expect_line("headers keep to their layers" kernel/gpu/a.cuh
            "template <class T>\nvoid f(T const* from, Tensor<T> const& tensor) { tensor.from(from[0]) }")
