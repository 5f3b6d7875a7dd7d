// Memory of what is handed to Python, kept for the next frame: the system takes large pieces back as soon as they are
// free, and to map and clear their pages again costs more than many a function that writes them.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace cvgl {

// Pieces that are free, up to a bound; all threads share them.
class Memory {
 public:
  // Never destroyed: Python may return arrays after everything static is gone.
  static Memory& shared() {
    static Memory* const memory = new Memory;
    return *memory;
  }

  void* take(std::size_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      std::size_t best = free_.size();
      for (std::size_t i = 0; i < free_.size(); ++i) {
        const std::size_t size = free_[i]->bytes;
        // Not one that is far too large: it may be wanted whole.
        if (size >= bytes && size / 2 <= bytes && (best == free_.size() || size < free_[best]->bytes)) best = i;
      }
      if (best < free_.size()) {
        Head* const found = free_[best];
        free_[best] = free_.back();
        free_.pop_back();
        held_ -= found->bytes;
        return found + 1;
      }
    }
    auto* const head = static_cast<Head*>(::operator new(sizeof(Head) + bytes, std::align_val_t(alignof(Head))));
    head->bytes = bytes;
    return head + 1;
  }

  void give(void* piece) noexcept {
    if (piece == nullptr) return;
    Head* const head = static_cast<Head*>(piece) - 1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (head->bytes >= kLeastBytes && held_ + head->bytes <= kMostBytes && free_.size() < kMostPieces) {
        held_ += head->bytes;
        free_.push_back(head);  // room for all was made at the start
        return;
      }
    }
    ::operator delete(head, std::align_val_t(alignof(Head)));
  }

 private:
  struct alignas(64) Head {
    std::size_t bytes;
  };

  // Small pieces are quick to come by; of the others a few frames' worth is kept.
  static constexpr std::size_t kLeastBytes = 1 << 14, kMostBytes = 32 << 20, kMostPieces = 128;

  Memory() { free_.reserve(kMostPieces); }

  std::mutex mutex_;
  std::vector<Head*> free_;
  std::size_t held_ = 0;
};

struct GiveBack {
  void operator()(void* piece) const noexcept { Memory::shared().give(piece); }
};

// An array of plain numbers, not initialised.
template <typename T>
using Room = std::unique_ptr<T[], GiveBack>;

template <typename T>
Room<T> room_for(std::size_t count) {
  return Room<T>(static_cast<T*>(Memory::shared().take(count * sizeof(T) + 1)));
}

}  // namespace cvgl
