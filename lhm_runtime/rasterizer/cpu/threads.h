// Helpers that wait on a condition variable between frames: no spinning, so an idle session costs nothing and a
// busy core is not stolen from the encoder.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace lhm {

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; i++) helpers_.emplace_back([this] { serve(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      quit_ = true;
    }
    wake_.notify_all();
    for (auto& t : helpers_) t.join();
  }

  // Calls job(context) once on every thread, the caller's included, and returns when all have finished.
  void run(void (*job)(void*), void* context) {
    if (!helpers_.empty()) {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = job, context_ = context, busy_ = (int)helpers_.size(), round_++;
      wake_.notify_all();
    }
    job(context);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (unsigned seen = 0;;) {
      wake_.wait(lock, [&] { return quit_ || round_ != seen; });
      if (quit_) return;
      seen = round_;
      lock.unlock();
      job_(context_);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> helpers_;
  void (*job_)(void*) = nullptr;
  void* context_ = nullptr;
  int busy_ = 0;
  unsigned round_ = 0;
  bool quit_ = false;
};

} // namespace lhm
