# SPDX-License-Identifier: Apache-2.0
# No header compiles as C++17, and the compiler's first error says what to do. As a script this judges all:
#   cmake -D HEADERS=<list> -D COMPILE=<compiler and flags, a list> -D SOURCE=<to write> -P StandardTests.cmake
cmake_minimum_required(VERSION 3.25)

if(NOT CMAKE_SCRIPT_MODE_FILE)
  # lightseq_standard_test(NAME HEADERS SOURCE COMMAND...): a test of the headers whose paths end so; SOURCE is an
  # extension.
  function(lightseq_standard_test name headers_are source_is)
    set(headers ${lightseq_headers})
    list(FILTER headers INCLUDE REGEX "${headers_are}$")
    set(compile ${ARGN} -std=c++17 -I ${PROJECT_SOURCE_DIR}/include)
    foreach(library IN ITEMS mpi:MPI::MPI_CXX nccl:NCCL::NCCL nccl:CUDA::cudart)
      string(REGEX MATCH "^([a-z]+):(.+)$" library ${library})
      if(TARGET lightseq::${CMAKE_MATCH_1})
        get_target_property(folders ${CMAKE_MATCH_2} INTERFACE_INCLUDE_DIRECTORIES)
        list(TRANSFORM folders PREPEND -I)
        list(APPEND compile ${folders})
      else()
        list(FILTER headers EXCLUDE REGEX "/${CMAKE_MATCH_1}\\.")
      endif()
    endforeach()
    add_test(NAME standard/${name}
             COMMAND ${CMAKE_COMMAND} "-DHEADERS=${headers}" "-DCOMPILE=${compile}"
                     -D SOURCE=${CMAKE_CURRENT_BINARY_DIR}/standard_${name}.${source_is}
                     -P ${CMAKE_CURRENT_FUNCTION_LIST_FILE})
  endfunction()
  return()
endif()

foreach(header IN LISTS HEADERS)
  file(WRITE ${SOURCE} "#include \"${header}\"\n")
  execute_process(COMMAND ${COMPILE} -E -o /dev/null ${SOURCE} OUTPUT_QUIET ERROR_VARIABLE output)
  string(REGEX MATCH "[^\n]*error: [^\n]*" first "${output}")
  if(NOT first MATCHES "lightseq needs C\\+\\+20")
    message(SEND_ERROR "${header} as C++17 says first: '${first}'")
  endif()
endforeach()
if(NOT HEADERS)
  message(FATAL_ERROR "there are no headers")
endif()
