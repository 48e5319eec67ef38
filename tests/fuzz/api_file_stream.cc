// A file stream from a stranger: no crash, bounded memory, and what is read, written again, is read
// as the same.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "qanat/api/file_stream.h"

using namespace qanat::api;

namespace {

FileStreamReader::Source pieces_of(std::string_view bytes, size_t step) {
  return [bytes, step](char* buffer, size_t size) mutable -> qanat::Result<size_t> {
    const size_t take = std::min({size, step, bytes.size()});
    if (take > 0) std::memcpy(buffer, bytes.data(), take);
    bytes.remove_prefix(take);
    return take;
  };
}

// Copies a stream frame by frame; the data of files into `data`.
qanat::Status copy(std::string_view input, size_t step, std::string& output, std::string& data) {
  FileStreamReader::Limits limits;
  limits.max_data_bytes = 1 << 20;
  limits.names = true;
  FileStreamReader reader(pieces_of(input, step), limits);
  FileStreamWriter writer([&output](std::string_view bytes) {
    output += bytes;
    return qanat::ok_status();
  });
  while (true) {
    QANAT_ASSIGN_OR_RETURN(auto frame, reader.next());
    if (!frame) return writer.finish();
    switch (frame->type) {
      case FrameType::kHead:
        QANAT_RETURN_IF_ERROR(writer.head(frame->json));
        break;
      case FrameType::kDatum:
        QANAT_RETURN_IF_ERROR(writer.datum(frame->json));
        break;
      case FrameType::kDelete:
        QANAT_RETURN_IF_ERROR(writer.remove(frame->path));
        break;
      case FrameType::kCopy:
        QANAT_RETURN_IF_ERROR(writer.copy(frame->json, frame->path));
        break;
      case FrameType::kSame:
        QANAT_RETURN_IF_ERROR(writer.same(frame->path, frame->content_id));
        break;
      case FrameType::kChunks:
        QANAT_RETURN_IF_ERROR(writer.begin_chunks(frame->path, frame->append));
        while (true) {
          QANAT_ASSIGN_OR_RETURN(auto chunk, reader.next_chunk());
          if (!chunk) break;
          QANAT_RETURN_IF_ERROR(writer.chunk(chunk->size, chunk->hash));
        }
        QANAT_RETURN_IF_ERROR(writer.end_chunks());
        break;
      case FrameType::kPut:
      case FrameType::kLog: {
        const bool put = frame->type == FrameType::kPut;
        QANAT_RETURN_IF_ERROR(put ? writer.begin_put(frame->path, frame->append)
                                  : writer.begin_log());
        char buffer[100];
        while (true) {
          QANAT_ASSIGN_OR_RETURN(size_t got, reader.read(buffer, sizeof buffer));
          if (got == 0) break;
          data.append(buffer, got);
          QANAT_RETURN_IF_ERROR(writer.data({buffer, got}));
        }
        QANAT_RETURN_IF_ERROR(put ? writer.end_put() : writer.end_log());
        break;
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  std::string first;
  std::string first_data;
  if (!copy(input, size + 1, first, first_data).ok()) return 0;
  std::string second;
  std::string second_data;
  if (!copy(first, 3, second, second_data).ok()) std::abort();
  if (first_data != second_data || first != second) std::abort();
  return 0;
}
