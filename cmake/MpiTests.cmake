# SPDX-License-Identifier: Apache-2.0
# Programs whose ranks are processes, started by mpirun.

# For Open MPI, here in a container of two cores: others ignore it.
set(mpi_environment OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
                    OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
                    OMPI_MCA_btl_vader_single_copy_mechanism=none)
if(LIGHTSEQ_SANITIZE)
  list(APPEND mpi_environment ASAN_OPTIONS=detect_leaks=0)  # MPI's own
endif()

# lightseq_mpi_test(NAME PROCESSES COMMAND...): ctest starts so many processes of the command.
function(lightseq_mpi_test name processes)
  add_test(NAME ${name} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${processes} ${ARGN})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300 PROCESSORS 2 ENVIRONMENT "${mpi_environment}")
endfunction()

# lightseq_mpi_survives(OUT): whether processes live on when one of them dies, where mpirun is told so.
function(lightseq_mpi_survives out)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment}
                          ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} 1 --enable-recovery ${CMAKE_COMMAND} -E true
                  RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET)
  if(result EQUAL 0)
    set(${out} TRUE PARENT_SCOPE)
  else()
    set(${out} FALSE PARENT_SCOPE)
  endif()
endfunction()
