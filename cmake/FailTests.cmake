# SPDX-License-Identifier: Apache-2.0
# A file of tests/fail compiles, and with LIGHTSEQ_FAULT defined it does not; then the compiler says what each
# of the file's lines `// expect: ...` says. As a script this judges one file:
#   cmake -D SOURCE=<file> -D COMPILE=<compiler and flags, a list> -P FailTests.cmake
cmake_minimum_required(VERSION 3.25)

if(NOT CMAKE_SCRIPT_MODE_FILE)
  # lightseq_fail_tests(SOURCE...): each file a test.
  function(lightseq_fail_tests)
    set(compile ${CMAKE_CXX_COMPILER} -std=c++20 -Wall -Wextra -Werror -I ${PROJECT_SOURCE_DIR}/include)
    foreach(source IN LISTS ARGN)
      cmake_path(GET source STEM name)
      add_test(NAME fail/${name} COMMAND ${CMAKE_COMMAND} -D SOURCE=${source} "-DCOMPILE=${compile}" -P
                                         ${CMAKE_CURRENT_FUNCTION_LIST_FILE})
    endforeach()
  endfunction()
  return()
endif()

file(STRINGS ${SOURCE} expected REGEX "^// expect: ")
list(TRANSFORM expected REPLACE "^// expect: " "")
if(NOT expected)
  message(FATAL_ERROR "${SOURCE} has no line '// expect: ...'")
endif()

execute_process(COMMAND ${COMPILE} -S -o /dev/null ${SOURCE} RESULT_VARIABLE result ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} does not compile even without its fault:\n${output}")
endif()
execute_process(COMMAND ${COMPILE} -D LIGHTSEQ_FAULT -S -o /dev/null ${SOURCE} RESULT_VARIABLE result
                ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles in spite of its fault")
endif()
foreach(sentence IN LISTS expected)
  string(FIND "${output}" "${sentence}" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "${SOURCE} fails without saying '${sentence}', but so:\n${output}")
  endif()
endforeach()
