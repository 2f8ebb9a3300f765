// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <mpi.h>

#include <string>
#include <vector>

/// Tests whose ranks are processes: all run the same test, and check what they have gathered from all.
namespace lightseq::test {

/// How many processes there are, and the number of this one.
inline int processes() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}
inline int process() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

/// The texts of all processes, in every one of them.
inline std::vector<std::string> gathered(std::string const& mine) {
  std::vector<std::string> all;
  for (int from = 0; from < processes(); ++from) {
    std::string text = mine;
    auto size = static_cast<int>(text.size());
    MPI_Bcast(&size, 1, MPI_INT, from, MPI_COMM_WORLD);
    text.resize(static_cast<std::size_t>(size));
    MPI_Bcast(text.data(), size, MPI_CHAR, from, MPI_COMM_WORLD);
    all.push_back(text);
  }
  return all;
}

/// A communicator of the first `size` processes; MPI_COMM_NULL in the others.
class FirstProcesses {
 public:
  explicit FirstProcesses(int size) {
    MPI_Comm_split(MPI_COMM_WORLD, process() < size ? 0 : MPI_UNDEFINED, process(), &comm_);
  }
  FirstProcesses(FirstProcesses const&) = delete;
  FirstProcesses& operator=(FirstProcesses const&) = delete;
  ~FirstProcesses() {
    if (taking_part()) MPI_Comm_free(&comm_);
  }

  bool taking_part() const { return comm_ != MPI_COMM_NULL; }
  MPI_Comm comm() const { return comm_; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

}  // namespace lightseq::test
