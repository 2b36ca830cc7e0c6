# The tests that need a CUDA driver, on the driver stub.
add_subdirectory(${PROJECT_SOURCE_DIR}/tests/support/cuda_driver_stub ${CMAKE_CURRENT_BINARY_DIR}/fakecuda)
set(fake ${CMAKE_CURRENT_BINARY_DIR}/fakecuda/lib)
set(old ${CMAKE_CURRENT_BINARY_DIR}/fakecuda/old)
set(broken ${CMAKE_CURRENT_BINARY_DIR}/broken)
file(WRITE ${broken}/libcuda.so.1 "This is not a library.\n")

foreach(name cuda_arena cuda_faults cuda_driver cuda_mailbox conditional_graph
        fake_driver)
  add_cpp_test(${name} adacache_base)
  add_dependencies(test_${name} fakecuda fakecuda_old)
endforeach()
add_dependencies(thread_tests test_cuda_arena test_cuda_mailbox)

# add_cuda_test(name library "variables" command...)
function(add_cuda_test name library variables)
  add_test(NAME ${name} COMMAND ${ARGN})
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "LD_LIBRARY_PATH=${library};${variables}")
endfunction()

add_cuda_test(cuda_arena ${fake} "" test_cuda_arena)
add_cuda_test(cuda_faults ${fake} "" test_cuda_faults)
add_cuda_test(cuda_mailbox ${fake} "" test_cuda_mailbox)
add_cuda_test(cuda_mailbox_threads ${fake} "" test_cuda_mailbox threads)
add_cuda_test(conditional_graph ${fake} "" test_conditional_graph)
add_cuda_test(fake_driver ${fake} "" test_fake_driver)
add_cuda_test(cuda_no_driver ${broken} "" test_cuda_driver error "no CUDA driver: " "libcuda.so.1")
add_cuda_test(cuda_no_device ${fake} FAKECUDA_DEVICES=0
  test_cuda_driver error "cuInit failed: CUDA_ERROR_NO_DEVICE (100)")
add_cuda_test(cuda_no_function ${fake} FAKECUDA_WITHOUT=cuEventRecord
  test_cuda_driver error "the CUDA driver has no cuEventRecord: it is too old")
add_cuda_test(cuda_no_virtual_memory ${fake} FAKECUDA_WITHOUT=cuMemMap
  test_cuda_driver plain "the CUDA driver has no cuMemMap: it is too old")
add_cuda_test(cuda_old_driver ${old} ""
  test_cuda_driver plain "the CUDA driver has no cuMemGetAllocationGranularity: it is too old")

# Compares the declarations of the driver with a cuda.h, if there is one.
find_path(ADACACHE_CUDA_INCLUDE cuda.h
  HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES include NO_DEFAULT_PATH
  DOC "Directory of a cuda.h to compare the declarations of the driver with")
if(ADACACHE_CUDA_INCLUDE)
  add_library(driver_abi OBJECT driver_abi.cpp)
  target_link_libraries(driver_abi PRIVATE adacache_base)
  target_include_directories(driver_abi SYSTEM PRIVATE ${ADACACHE_CUDA_INCLUDE})
endif()
message(STATUS "Declarations of the CUDA driver compared with: ${ADACACHE_CUDA_INCLUDE}")
