# SPDX-License-Identifier: Apache-2.0
# A file of tests/fail compiles, and with LIGHTSEQ_FAULT defined it does not; then the compiler says what each
# of the file's lines `// expect: ...` says. Where the fault is not in the file but in how it is compiled, its
# line `// fault: ...` gives the flags for that, and a line `// flags: ...` those without the fault. The headers are
# compiled once for all .cpp files, since they take most of the time. As a script this judges one file:
#   cmake -D SOURCE=<file> -D COMPILE=<compiler and flags, a list> -P FailTests.cmake
cmake_minimum_required(VERSION 3.25)

if(NOT CMAKE_SCRIPT_MODE_FILE)
  # lightseq_fail_tests(SOURCE...): each file a test.
  function(lightseq_fail_tests)
    set(include -I ${PROJECT_SOURCE_DIR}/include)
    set(host_compile ${CMAKE_CXX_COMPILER} -std=c++20 -Wall -Wextra -Werror ${include})
    set(headers ${CMAKE_CURRENT_BINARY_DIR}/fail/headers.hpp)
    file(CONFIGURE OUTPUT ${headers} CONTENT "#include \"lightseq/lightseq.hpp\"\n")
    add_test(NAME fail/headers COMMAND ${host_compile} -x c++-header ${headers} -o ${headers}.gch)
    set_tests_properties(fail/headers PROPERTIES FIXTURES_SETUP fail_headers)
    foreach(source IN LISTS ARGN)
      cmake_path(GET source STEM name)
      set(compile ${host_compile} -include ${headers} -S)
      if(source MATCHES "\\.cu$")
        set(compile ${CMAKE_CUDA_COMPILER} -std=c++20 -Werror=all-warnings ${include} -c)
        string(APPEND name .cu)
      endif()
      add_test(NAME fail/${name} COMMAND ${CMAKE_COMMAND} -D SOURCE=${source} "-DCOMPILE=${compile}" -P
                                         ${CMAKE_CURRENT_FUNCTION_LIST_FILE})
      if(source MATCHES "\\.cu$")
        set_tests_properties(fail/${name} PROPERTIES LABELS nvcc)
      else()
        set_tests_properties(fail/${name} PROPERTIES FIXTURES_REQUIRED fail_headers)
      endif()
    endforeach()
  endfunction()
  return()
endif()

# The rest of each of the file's lines `// NAME: ...`.
function(line_of name out)
  file(STRINGS ${SOURCE} line REGEX "^// ${name}: ")
  list(TRANSFORM line REPLACE "^// ${name}: " "")
  set(${out} "${line}" PARENT_SCOPE)
endfunction()

line_of(expect expected)
if(NOT expected)
  message(FATAL_ERROR "${SOURCE} has no line '// expect: ...'")
endif()
line_of(flags flags)
separate_arguments(flags)
line_of(fault fault)
separate_arguments(fault)
if(NOT fault)
  set(fault ${flags} -D LIGHTSEQ_FAULT)
endif()

execute_process(COMMAND ${COMPILE} ${flags} -o /dev/null ${SOURCE} RESULT_VARIABLE result ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} does not compile even without its fault:\n${output}")
endif()
execute_process(COMMAND ${COMPILE} ${fault} -o /dev/null ${SOURCE} RESULT_VARIABLE result ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles in spite of its fault")
endif()
foreach(sentence IN LISTS expected)
  string(FIND "${output}" "${sentence}" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "${SOURCE} fails without saying '${sentence}', but so:\n${output}")
  endif()
endforeach()
