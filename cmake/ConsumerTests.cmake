# SPDX-License-Identifier: Apache-2.0
# tests/consumer, configured, built and run as a project of its own, in each way to use lightseq.
function(lightseq_consumer_tests)
  set(scratch ${CMAKE_CURRENT_BINARY_DIR}/consumer)
  add_test(NAME consumer/install
           COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${scratch}/prefix)
  set_tests_properties(consumer/install PROPERTIES FIXTURES_SETUP installed)
  foreach(way IN ITEMS find_package add_subdirectory FetchContent)
    add_test(NAME consumer/${way}
             COMMAND ${CMAKE_CTEST_COMMAND}
                     --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/consumer ${scratch}/${way}
                     --build-generator ${CMAKE_GENERATOR}
                     --build-options -DCONSUME=${way} -DLIGHTSEQ_SOURCE=${PROJECT_SOURCE_DIR}
                                     -DCMAKE_PREFIX_PATH=${scratch}/prefix
                                     -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}
                     --test-command consumer)
  endforeach()
  set_tests_properties(consumer/find_package PROPERTIES FIXTURES_REQUIRED installed)
  # A component that cannot be had says what is missing.
  add_test(NAME consumer/missing_component
           COMMAND ${CMAKE_COMMAND} -D CODE=1 "-DTEXT=lightseq::mpi: no MPI was found"
                   -P ${PROJECT_SOURCE_DIR}/cmake/ExpectExit.cmake --
                   ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_SOURCE_DIR}/consumer -B ${scratch}/missing_component
                   -G ${CMAKE_GENERATOR} -DCONSUME=find_package -DCONSUME_MPI=ON -DCMAKE_PREFIX_PATH=${scratch}/prefix
                   -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON)
  set_tests_properties(consumer/missing_component PROPERTIES FIXTURES_REQUIRED installed)
  if(TARGET lightseq::mpi)
    foreach(way IN ITEMS find_package add_subdirectory)
      add_test(NAME consumer/${way}_mpi
               COMMAND ${CMAKE_CTEST_COMMAND}
                       --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/consumer ${scratch}/${way}_mpi
                       --build-generator ${CMAKE_GENERATOR}
                       --build-options -DCONSUME=${way} -DCONSUME_MPI=ON -DLIGHTSEQ_SOURCE=${PROJECT_SOURCE_DIR}
                                       -DCMAKE_PREFIX_PATH=${scratch}/prefix
                                       -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}
                       --test-command consumer)
    endforeach()
    set_tests_properties(consumer/find_package_mpi PROPERTIES FIXTURES_REQUIRED installed)
  endif()
  if(LIGHTSEQ_CUDA)
    lightseq_cuda_consumer_tests()
  endif()
endfunction()

# The same with a .cu file: compiled and linked everywhere, run where there is a GPU.
function(lightseq_cuda_consumer_tests)
  set(options -DLIGHTSEQ_SOURCE=${PROJECT_SOURCE_DIR} -DCMAKE_PREFIX_PATH=${scratch}/prefix
              -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER})
  foreach(case IN ITEMS find_package:90a add_subdirectory:80-real,90a-real)
    string(REGEX MATCH "(.+):(.+)" case ${case})
    set(way ${CMAKE_MATCH_1})
    add_test(NAME consumer/${way}_cuda
             COMMAND ${CMAKE_CTEST_COMMAND}
                     --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/consumer ${scratch}/${way}_cuda
                     --build-generator ${CMAKE_GENERATOR}
                     --build-options -DCONSUME=${way} -DCONSUME_CUDA=${CMAKE_MATCH_2} ${options})
    set_tests_properties(consumer/${way}_cuda PROPERTIES FIXTURES_SETUP ${way}_cuda LABELS nvcc)
    add_test(NAME consumer/${way}_cuda_runs COMMAND ${scratch}/${way}_cuda/consumer_cuda)
    set_tests_properties(consumer/${way}_cuda_runs PROPERTIES FIXTURES_REQUIRED ${way}_cuda LABELS gpu
                                                              SKIP_RETURN_CODE 77)
  endforeach()
  set_tests_properties(consumer/find_package_cuda PROPERTIES FIXTURES_REQUIRED installed)

  # Architectures on which no kernel works are refused at once; without any CMake takes the oldest.
  foreach(refused IN ITEMS default 75 90 80,90-real 90a,90-virtual all-major)
    string(REGEX REPLACE ".*,|default" "" architecture ${refused})
    string(REPLACE "," "_" name consumer/refuses_${refused})
    add_test(NAME ${name}
             COMMAND ${CMAKE_COMMAND} -D CODE=1 "-DTEXT=lightseq: CMAKE_CUDA_ARCHITECTURES has ${architecture}"
                     -P ${PROJECT_SOURCE_DIR}/cmake/ExpectExit.cmake --
                     ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_SOURCE_DIR}/consumer -B ${scratch}/refuses
                     -G ${CMAKE_GENERATOR} -DCONSUME=add_subdirectory -DCONSUME_CUDA=${refused} ${options})
    set_tests_properties(${name} PROPERTIES LABELS nvcc RESOURCE_LOCK consumer_refuses)
  endforeach()
endfunction()
