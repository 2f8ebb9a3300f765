# SPDX-License-Identifier: Apache-2.0
# How the project's own tests, benchmarks and examples are built. None of it reaches a consumer.
include(CheckCXXCompilerFlag)

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, RelWithDebInfo or Debug" FORCE)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)

add_library(lightseq_own INTERFACE)
target_link_libraries(lightseq_own INTERFACE lightseq::lightseq)
target_compile_options(lightseq_own INTERFACE
                       $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Wshadow -Werror>)

# The host kernels are written for the compiler's vectoriser: they need the machine's own instructions.
check_cxx_compiler_flag(-march=native LIGHTSEQ_HAS_MARCH_NATIVE)
if(PROJECT_IS_TOP_LEVEL AND LIGHTSEQ_HAS_MARCH_NATIVE)
  set(native_default ON)
else()
  set(native_default OFF)
endif()
option(LIGHTSEQ_NATIVE "Compile tests, benchmarks and examples for this machine's CPU" ${native_default})
if(LIGHTSEQ_NATIVE)
  target_compile_options(lightseq_own INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
endif()

set(LIGHTSEQ_SANITIZE "" CACHE STRING "A value for -fsanitize=, e.g. address, undefined or thread")
if(LIGHTSEQ_SANITIZE)
  target_compile_definitions(lightseq_own INTERFACE LIGHTSEQ_SANITIZED)
  target_compile_options(lightseq_own INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${LIGHTSEQ_SANITIZE}
                                                -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(lightseq_own INTERFACE -fsanitize=${LIGHTSEQ_SANITIZE})
endif()

option(LIGHTSEQ_FUZZ "Build the libFuzzer programs; needs clang" OFF)

# Everything in .cu and .cuh files.
if(LIGHTSEQ_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND PROJECT_IS_TOP_LEVEL)
    set(CMAKE_CUDA_ARCHITECTURES 90a-real CACHE STRING "GPU architectures")
  endif()
  enable_language(CUDA)
  add_custom_target(cuda)  # every CUDA target, and no other
  target_compile_options(lightseq_own INTERFACE
                         "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror>")
endif()

# lightseq_compilers(OUT): those of this machine for which headers must be right, whichever builds the rest.
function(lightseq_compilers out)
  set(compilers "")
  foreach(name IN ITEMS g++ clang++)
    find_program(LIGHTSEQ_${name} ${name})
    if(LIGHTSEQ_${name})
      list(APPEND compilers ${LIGHTSEQ_${name}})
    endif()
  endforeach()
  set(${out} ${compilers} PARENT_SCOPE)
endfunction()

# lightseq_requirements(OUT SOURCE): the libraries that a file's program links besides the headers, read from
# the file's includes. Where one is missing the file is left out, and OUT is LEFT_OUT.
function(lightseq_requirements out source)
  file(STRINGS ${source} includes REGEX "^#include ")
  set(libraries "")
  if(includes MATCHES "<benchmark/benchmark\\.h>")
    find_package(benchmark QUIET)  # Debian: libbenchmark-dev
    list(APPEND libraries benchmark::benchmark)
  endif()
  if(includes MATCHES "<cblas\\.h>")
    find_package(CBLAS QUIET)
    list(APPEND libraries CBLAS::CBLAS)
  endif()
  if(includes MATCHES "<cublas_v2\\.h>")
    find_package(CUDAToolkit QUIET)
    list(APPEND libraries CUDA::cublas)
  endif()
  if(includes MATCHES "lightseq/transport/mpi\\.hpp|<mpi\\.h>")
    list(APPEND libraries lightseq::mpi)
  endif()
  if(includes MATCHES "lightseq/(transport|testing)/nccl\\.")
    list(APPEND libraries lightseq::nccl)
  endif()
  foreach(library IN LISTS libraries)
    if(NOT TARGET ${library})
      message(WARNING "${source} is left out: it needs ${library}, which was not found")
      set(libraries LEFT_OUT)
      break()
    endif()
  endforeach()
  set(${out} ${libraries} PARENT_SCOPE)
endfunction()

# lightseq_program(TARGET SOURCE [LIBRARY...]): one program from one file; no target where it is left out.
function(lightseq_program target source)
  lightseq_requirements(libraries ${source})
  if(libraries STREQUAL "LEFT_OUT")
    return()
  endif()
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE lightseq_own ${ARGN} ${libraries})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${PROJECT_SOURCE_DIR})
  if(source MATCHES "\\.cu$")
    add_dependencies(cuda ${target})
  endif()
endfunction()

# lightseq_programs(OUT [FOLDER...]): the .cpp files of the current folder, and of these in it, and, with CUDA,
# their .cu files.
function(lightseq_programs out)
  set(patterns "")
  foreach(folder IN ITEMS "" LISTS ARGN)
    list(APPEND patterns ${folder}*.cpp)
    if(LIGHTSEQ_CUDA)
      list(APPEND patterns ${folder}*.cu)
    endif()
  endforeach()
  list(TRANSFORM patterns PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  set(${out} ${sources} PARENT_SCOPE)
endfunction()
