// Does the app compute what @NAME@ must give? Written by edgecsd golden; needs Foundation only.
//
//   let result = try GoldenTests(app: app) { name in try Data(contentsOf: pack.appendingPathComponent(name)) }.run()
//   XCTAssertTrue(result.passed, result.lines.joined(separator: "\n"))

import Foundation

/// Upright pixels, RGB, height x width x 3, rows from the top.
struct GoldenImage {
    let rgb: [UInt8]
    let width: Int
    let height: Int
}

/// What the app implements; decode and search may be left out.
protocol GoldenApp {
    /// An encoded photo -> @SIZE@ x @SIZE@ x 3, RGB, rows from the top, 0 to 255.
    func preprocess(_ photo: Data) throws -> [UInt8]
    /// That array through the file -> @DIM@ numbers.
    func embed(_ tensor: [UInt8]) throws -> [Float]
    /// Tells wrong decoding from wrong resizing.
    func decode(_ photo: Data) throws -> GoldenImage?
    /// Ids from the index, best first.
    func search(_ embedding: [Float], k: Int) throws -> [String]?
}

extension GoldenApp {
    func decode(_ photo: Data) throws -> GoldenImage? { nil }
    func search(_ embedding: [Float], k: Int) throws -> [String]? { nil }
}

struct GoldenItem {
    let name: String
    let orientation: Int
    let width: Int
    let height: Int
    let ids: [String]
}

struct GoldenResult {
    let passed: Bool
    let lines: [String]
}

struct GoldenError: Error {
    let text: String
}

final class GoldenTests {
    static let artifact = "@SHA256@" // SHA-256 of the file that this pack is of
    static let fingerprint = "@FINGERPRINT@" // of the embedding space
    static let size = @SIZE@
    static let grid = @GRID@
    static let k = @K@
    static let decodedMean: Double = @DECODED_MEAN@
    static let tensorMean: Double = @TENSOR_MEAN@
    static let tensorMax = @TENSOR_MAX@
    static let cosine: Double = @COSINE@
    static let maxDifference: Float = @MAX_DIFFERENCE@
    static let normError: Double = @NORM_ERROR@
    static let endToEndCosine: Double = @END_TO_END_COSINE@
    static let overlap: Double = @OVERLAP@

    static let mistakes: [String] = [
@MISTAKES@
    ]
    static let items: [GoldenItem] = [
@ITEMS@
    ]
    static let stages = ["decoding", "preprocessing", "runtime", "end to end", "results"]
    static let causes = [
        "decoding": "the decoder: orientation, channel order, or a colour profile that was applied",
        "preprocessing": "the decoding above; if that passed, resize, crop or channel order are not the pixel contract in golden.json",
        "runtime": "the runtime: another file, a delegate in low precision, or an input of another layout or range",
        "end to end": "the preprocessing above; if that passed, the tensor changes between preprocess and embed",
        "results": "the index or its search parameters; or an embedding above",
    ]

    private let app: GoldenApp
    private let load: (String) throws -> Data
    private var failures: [String: [String]] = [:]
    private var counts: [String: Int] = [:]
    private var pixelErrors = Explanation()
    private var vectorErrors = Explanation()
    private var turned = "" // of a photo with an EXIF orientation that decodes wrongly
    private var uprightWrong = false

    init(app: GoldenApp, load: @escaping (String) throws -> Data) {
        self.app = app
        self.load = load
    }

    func run() throws -> GoldenResult {
        let manifest = String(decoding: try load("golden.json"), as: UTF8.self)
        guard manifest.contains(Self.artifact) else {
            throw GoldenError(text: "this self-test and golden.json are of two different packs")
        }
        let overlaps = try Self.items.compactMap { try measure($0) }
        if !overlaps.isEmpty {
            let mean = overlaps.reduce(0, +) / Double(overlaps.count)
            note("results", "all photos", mean >= Self.overlap, "overlap@\(Self.k) \(mean)")
        }
        let explained = [
            "decoding": uprightWrong ? "" : turned,
            "preprocessing": pixelErrors.nearest(Self.tensorMean),
            "runtime": vectorErrors.nearest(1 - Self.cosine),
        ]
        var lines: [String] = []
        for stage in Self.stages {
            guard let count = counts[stage] else { continue }
            let wrong = failures[stage] ?? []
            let cause = explained[stage] ?? ""
            lines.append("\(wrong.isEmpty ? "pass" : "FAIL")  \(stage): \(count - wrong.count) of \(count)")
            if wrong.isEmpty { continue }
            lines.append("      " + (cause.isEmpty ? Self.causes[stage] ?? "" : "this looks like: " + cause))
            lines += wrong.map { "      " + $0 }
        }
        return GoldenResult(passed: failures.isEmpty, lines: lines)
    }

    /// The share of the expected ids that are found; nil where they are not asked for.
    private func measure(_ item: GoldenItem) throws -> Double? {
        let photo = try load("photos/\(item.name).jpg")
        let wanted = [UInt8](try load("tensors/\(item.name).bin"))
        let expected = Self.floats(try load("embeddings/\(item.name).bin"))
        let samples = [UInt8](try load("signatures/\(item.name)-samples.bin"))
        let mistaken = Self.floats(try load("signatures/\(item.name)-embeddings.bin"))
        let signature = { (place: Int) -> [UInt8] in
            Array(samples[place * Self.grid * Self.grid * 3 ..< (place + 1) * Self.grid * Self.grid * 3])
        }

        if let image = try app.decode(photo) {
            let fits = image.width == item.width && image.height == item.height
            let error = fits ? Self.mean(Self.sampled(image.rgb, image.width, image.height), signature(0)) : 255
            let shown = "\(image.width) x \(image.height), expected \(item.width) x \(item.height), difference \(error)"
            let right = fits && error <= Self.decodedMean
            if !right && item.orientation == 1 { uprightWrong = true }
            if !right && item.orientation != 1 {
                turned = "EXIF orientation \(item.orientation) ignored or misapplied"
            }
            note("decoding", item.name, right, shown)
        }

        let tensor = try app.preprocess(photo)
        let fits = tensor.count == wanted.count
        let error = fits ? Self.mean(tensor, wanted) : 255
        let most = fits ? zip(tensor, wanted).map { abs(Int($0) - Int($1)) }.max() ?? 0 : 255
        let near = error <= Self.tensorMean && most <= Self.tensorMax
        note("preprocessing", item.name, near, "\(tensor.count) bytes, mean difference \(error), largest \(most)")
        if fits && !near {
            let own = Self.sampled(tensor, Self.size, Self.size)
            pixelErrors.add(Self.mean(own, signature(1))) { Self.mean(own, signature($0 + 2)) }
        }

        let given = try app.embed(wanted)
        let alike = Self.cosine(given, expected)
        let length = given.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
        let exact = alike >= Self.cosine && zip(given, expected).allSatisfy { abs($0 - $1) <= Self.maxDifference }
        let same = exact && abs(length - 1) <= Self.normError
        note("runtime", item.name, same, "cosine \(alike), length \(length)")
        if !same {
            let dim = expected.count
            vectorErrors.add(1 - alike) { 1 - Self.cosine(given, Array(mistaken[$0 * dim ..< ($0 + 1) * dim])) }
        }

        let own = fits ? try app.embed(tensor) : []
        let through = Self.cosine(own, expected)
        note("end to end", item.name, through >= Self.endToEndCosine, "cosine \(through)")
        guard fits, !item.ids.isEmpty, let found = try app.search(own, k: Self.k) else { return nil }
        let set = Set(found.prefix(Self.k))
        return Double(item.ids.filter { set.contains($0) }.count) / Double(item.ids.count)
    }

    private func note(_ stage: String, _ photo: String, _ right: Bool, _ figure: String) {
        counts[stage, default: 0] += 1
        if !right { failures[stage, default: []].append("\(photo): \(figure)") }
    }

    /// Sums, over the photos that are wrong, how far the app's values are from the right ones and each mistake's.
    private struct Explanation {
        static let explained = 0.25 // a mistake explains a deviation if it leaves at most this share of it
        var right = 0.0
        var count = 0
        var mistaken = [Double](repeating: 0, count: GoldenTests.mistakes.count)

        mutating func add(_ error: Double, _ distance: (Int) -> Double) {
            right += error
            count += 1
            for m in mistaken.indices { mistaken[m] += distance(m) }
        }

        func nearest(_ tolerance: Double) -> String {
            guard count > 0, let least = mistaken.min(), let best = mistaken.firstIndex(of: least) else { return "" }
            let clear = least <= Self.explained * right || (least < right / 2 && least <= tolerance * Double(count))
            return clear ? GoldenTests.mistakes[best] : ""
        }
    }

    /// The RGB values at grid x grid places, rows and columns floor((i + 0.5) side / grid).
    private static func sampled(_ rgb: [UInt8], _ width: Int, _ height: Int) -> [UInt8] {
        var out: [UInt8] = []
        for y in 0 ..< grid {
            for x in 0 ..< grid {
                let at = ((2 * y + 1) * height / (2 * grid) * width + (2 * x + 1) * width / (2 * grid)) * 3
                out += rgb[at ..< at + 3]
            }
        }
        return out
    }

    private static func mean(_ one: [UInt8], _ other: [UInt8]) -> Double {
        Double(zip(one, other).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }) / Double(other.count)
    }

    private static func floats(_ data: Data) -> [Float] {
        let bytes = [UInt8](data)
        return stride(from: 0, to: bytes.count, by: 4).map { at in
            let bits = (0 ..< 4).reduce(UInt32(0)) { $0 | UInt32(bytes[at + $1]) << UInt32(8 * $1) }
            return Float(bitPattern: bits)
        }
    }

    /// NaN, which fails every comparison, for vectors of another length, of zeros, or with what is not finite.
    private static func cosine(_ one: [Float], _ other: [Float]) -> Double {
        guard one.count == other.count else { return .nan }
        let sum = { (a: [Float], b: [Float]) in zip(a, b).reduce(0.0) { $0 + Double($1.0) * Double($1.1) } }
        return sum(one, other) / (sum(one, one) * sum(other, other)).squareRoot()
    }
}
