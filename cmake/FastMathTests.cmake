# SPDX-License-Identifier: Apache-2.0
# Flags that let a compiler break IEEE 754 are refused by a sentence, or do no harm where no macro tells of them:
# tests/fast_math, built with each and run where it builds. As a script this judges one:
#   cmake -D REFUSED=<ON or OFF> -D COMPILE=<compiler, flags and source, a list> -D PROGRAM=<to write>
#         -P FastMathTests.cmake
cmake_minimum_required(VERSION 3.25)

if(NOT CMAKE_SCRIPT_MODE_FILE)
  # lightseq_fast_math_test(COMPILER REFUSED FLAG...)
  function(lightseq_fast_math_test compiler refused)
    cmake_path(GET compiler FILENAME name)
    string(CONCAT name fast_math/${name} ${ARGN})
    string(REPLACE "fast_math/" "" program ${name})
    set(compile ${compiler} -std=c++20 -O2 ${ARGN} -I ${PROJECT_SOURCE_DIR}/include -pthread
                ${CMAKE_CURRENT_SOURCE_DIR}/fast_math/attention.cpp)
    if(LIGHTSEQ_NATIVE)
      list(APPEND compile -march=native)
    endif()
    add_test(NAME ${name}
             COMMAND ${CMAKE_COMMAND} -D REFUSED=${refused} "-DCOMPILE=${compile}"
                     -D PROGRAM=${CMAKE_CURRENT_BINARY_DIR}/fast_math${program} -P ${CMAKE_CURRENT_FUNCTION_LIST_FILE})
  endfunction()

  function(lightseq_fast_math_tests)
    lightseq_compilers(compilers)
    foreach(compiler IN LISTS compilers)
      set(has_macros OFF)
      if(compiler MATCHES "/g\\+\\+$")
        set(has_macros ON)
      endif()
      foreach(flag IN ITEMS -ffast-math -Ofast -ffinite-math-only)
        lightseq_fast_math_test(${compiler} ON ${flag})
      endforeach()
      lightseq_fast_math_test(${compiler} ${has_macros} -funsafe-math-optimizations)
      lightseq_fast_math_test(${compiler} ${has_macros} -fassociative-math -fno-signed-zeros -fno-trapping-math)
      if(has_macros)  # these are harmless; elsewhere -funsafe-math-optimizations holds them
        lightseq_fast_math_test(${compiler} OFF -freciprocal-math -fno-signed-zeros -fno-trapping-math)
      endif()
    endforeach()
  endfunction()
  return()
endif()

set(sentence "lightseq is wrong under -ffast-math")
execute_process(COMMAND ${COMPILE} -Wfatal-errors -o ${PROGRAM} RESULT_VARIABLE result ERROR_VARIABLE output)
if(REFUSED)
  string(FIND "${output}" "${sentence}" found)
  if(result EQUAL 0 OR found EQUAL -1)
    message(FATAL_ERROR "this compiles, or fails without saying '${sentence}':\n${output}")
  endif()
  return()
endif()
if(NOT result EQUAL 0)
  message(FATAL_ERROR "this does not compile:\n${output}")
endif()
execute_process(COMMAND ${PROGRAM} RESULT_VARIABLE result OUTPUT_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the results are wrong (${result}):\n${output}")
endif()
