// What happened between samples: rates of counters, and times within which so many requests were done.

export const POINTS = 120;

export class History {
  constructor() { this.samples = []; }

  // A server that began anew counts from nothing: what came before says nothing of it.
  add(sample) {
    const last = this.samples.at(-1);
    if (last && (sample.serving.incarnation !== last.serving.incarnation || sample.store.uptime_seconds < last.store.uptime_seconds)) {
      this.samples = [];
    }
    this.samples.push(sample);
    if (this.samples.length > POINTS + 1) this.samples.shift();
  }

  get newest() { return this.samples.at(-1); }

  // Growth a second of what `pick` gives, between each two samples, oldest first.
  rates(pick) {
    const found = [];
    for (let at = 1; at < this.samples.length; at += 1) {
      const [one, two] = [this.samples[at - 1], this.samples[at]];
      const took = two.store.uptime_seconds - one.store.uptime_seconds;
      found.push(took > 0 ? Math.max(pick(two) - pick(one), 0) / took : 0);
    }
    return found;
  }

  // The same over the last `count` samples together.
  rate(pick, count = 10) {
    const [one, two] = [this.samples.at(-1 - Math.min(count, this.samples.length - 1)), this.newest];
    const took = two.store.uptime_seconds - one.store.uptime_seconds;
    return took > 0 ? Math.max(pick(two) - pick(one), 0) / took : 0;
  }

  // Median and 99th percentile of the last minute, in seconds, from histograms.
  times(pick, bounds) {
    const [one, two] = [this.samples.at(-1 - Math.min(60, this.samples.length - 1)), this.newest];
    const counts = pick(two).counts.map((value, at) => value - (one === two ? 0 : pick(one).counts[at]));
    return { count: counts.reduce((sum, value) => sum + value, 0), median: quantile(counts, bounds, 0.5), p99: quantile(counts, bounds, 0.99) };
  }
}

// Evenly spread in its bucket, as Prometheus estimates it; null: there were none.
export function quantile(counts, bounds, share) {
  const wanted = share * counts.reduce((sum, value) => sum + value, 0);
  if (!wanted) return null;
  let below = 0;
  for (let at = 0; at < counts.length; at += 1) {
    if (below + counts[at] >= wanted) {
      if (at >= bounds.length) return Infinity;
      const low = at ? bounds[at - 1] : 0;
      return low + (bounds[at] - low) * (wanted - below) / counts[at];
    }
    below += counts[at];
  }
  return Infinity;
}
