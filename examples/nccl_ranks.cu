// SPDX-License-Identifier: Apache-2.0
// Ranks that are processes with a GPU each: exact causal attention, forward and backward, over NCCL, checked
// against dense attention in double precision. Where there are fewer GPUs than ranks they share them, for a
// trial. NCCL's id reaches all ranks through MPI:
//   mpirun -np 4 nccl_ranks
// or through a file that all can read and that does not exist yet; then each rank is started by hand, and
// the file is gone once all have met:
//   for rank in 0 1 2 3; do nccl_ranks --rank $rank --world 4 --id /tmp/id & done; wait
// From lightseq::testing come random tensors, this rank's part of them in device memory, the check, and the
// choice of a GPU, as NCCL is the subject here; quickstart_gpu.cu shows what a part is.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "examples/support/options.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/nccl.cuh"

namespace {

using lightseq::testing::check_cuda;
using lightseq::testing::check_nccl;

constexpr int head_dim = 64;
constexpr double bound = 1e-2;

struct OverNccl : lightseq::CudaTraits {
  using Transport = lightseq::Nccl;
};
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Balanced, OverNccl>;

/// NCCL's id from rank 0, through a file that appears under its name when it is whole.
ncclUniqueId id_from_file(int rank, std::string const& path) {
  ncclUniqueId id = {};
  if (rank == 0) {
    check_nccl(ncclGetUniqueId(&id));
    std::ofstream(path + ".part", std::ios::binary).write(id.internal, sizeof id.internal);
    std::filesystem::rename(path + ".part", path);
    return id;
  }
  while (!std::filesystem::exists(path)) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::ifstream(path, std::ios::binary).read(id.internal, sizeof id.internal);
  return id;
}

/// This rank's part; its results go back into the sequence.
lightseq::Status attend(ncclComm_t comm, lightseq::Problem const& problem,
                        lightseq::testing::Sequence<lightseq::bfloat16>& sequence) {
  // The messages' stream comes first wherever both have work, and attention leaves them multiprocessors.
  int least = 0, greatest = 0;
  cudaStream_t exchange = nullptr, compute = nullptr;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  check_cuda(cudaStreamCreateWithPriority(&exchange, cudaStreamNonBlocking, greatest));
  check_cuda(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));

  lightseq::Nccl nccl(comm, exchange, {.timeout = std::chrono::seconds(30)});
  Attn attn(nccl, problem);  // throws on every rank if one is given another problem
  lightseq::testing::DevicePart<Attn> mine(attn, sequence);
  check_cuda(cudaDeviceSynchronize());

  Attn::Stream const stream{.compute = compute, .sm_margin = 8};
  lightseq::Status status = attn.forward(mine.inputs(), mine.outputs(), mine.workspace.span(), stream);
  if (status.ok())
    status = attn.backward(mine.backward_inputs(), mine.gradients(), mine.workspace.span(), stream);
  if (status.ok()) status = attn.wait(stream);  // the calls only enqueue: a lost peer shows here
  if (!status.ok()) {
    std::printf("%s\nthe latest messages:\n%s", status.message().c_str(),
                attn.flight_record().text().c_str());
    return status;
  }
  mine.put_back(sequence);
  std::printf("rank %d: %lld tokens, %.2f MB sent\n", nccl.rank(), static_cast<long long>(attn.tokens()),
              1e-6 * static_cast<double>(attn.bytes_sent(lightseq::Pass::forward) +
                                         attn.bytes_sent(lightseq::Pass::backward)));
  return status;
}

int run(int rank, int world, int gpus, std::string const& file) {
  lightseq::testing::take_gpu(rank, world, gpus);
  ncclUniqueId id = {};
  if (!file.empty()) {
    id = id_from_file(rank, file);
  } else {
    if (rank == 0) check_nccl(ncclGetUniqueId(&id));
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
  }
  ncclComm_t comm = nullptr;
  check_nccl(ncclCommInitRank(&comm, world, id, rank));
  if (!file.empty() && rank == 0) std::filesystem::remove(file);  // or the next run would find an old id

  lightseq::Problem const problem{.batch = 1, .seqlen = 700, .heads = 8, .kv_heads = 2};
  auto sequence = lightseq::testing::random_sequence<lightseq::bfloat16>(problem, head_dim, 1);  // alike
  auto const dense = lightseq::testing::dense<head_dim>(sequence, lightseq::Causal{});

  // Each rank checks the rows that it owns: in the others stands what dense attention says.
  auto const preset = [](auto& results, auto const& want) {
    for (std::size_t i = 0; i < results.size(); ++i)
      results[i] = lightseq::bfloat16(static_cast<float>(want[i]));
  };
  preset(sequence.o, dense.o);
  preset(sequence.dq, dense.dq);
  preset(sequence.dk, dense.dk);
  preset(sequence.dv, dense.dv);
  if (!attend(comm, problem, sequence).ok()) return 1;  // `comm` has been aborted
  double const errors[] = {lightseq::testing::relative_error(sequence.o, dense.o),
                           lightseq::testing::relative_error(sequence.dq, dense.dq),
                           lightseq::testing::relative_error(sequence.dk, dense.dk),
                           lightseq::testing::relative_error(sequence.dv, dense.dv)};
  std::printf("rank %d: relative errors against dense attention: o %.1e, dq %.1e, dk %.1e, dv %.1e\n", rank,
              errors[0], errors[1], errors[2], errors[3]);
  check_nccl(ncclCommDestroy(comm));  // waits for the other ranks
  return *std::max_element(errors, errors + 4) < bound ? 0 : 1;
}

/// The ranks of MPI, or the one that the options name; without a GPU none.
int run(lightseq::support::Options const& options) {
  std::string const& file = options.text("--id");
  int rank = 0, world = 0, gpus = 0;
  if (file.empty()) {
    MPI_Init(nullptr, nullptr);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world);
  } else {
    world = options.small("--world", 1, 1024);
    rank = options.small("--rank", 0, world - 1);
  }
  int result = lightseq::testing::skipped;
  if (lightseq::testing::has_gpu()) {
    check_cuda(cudaGetDeviceCount(&gpus));
    result = run(rank, world, gpus, file);
  } else {
    std::printf("skipped: there is no GPU\n");
  }
  if (file.empty()) MPI_Finalize();
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  lightseq::support::Options options({{"--id", "", "the file of NCCL's id; without it ranks are MPI's"},
                                      {"--rank", "0", "with --id: this process, from 0 on"},
                                      {"--world", "1", "with --id: how many processes there are"}});
  return lightseq::support::run_main(argc, argv, options, [&] { return run(options); });
}
