// Measures the .mlpackage of this folder on an iPhone, iPad or Mac; written by edgecsd bench script.
//
// Drag the folder into the Xcode project as a folder reference, build for Release, and call, not from the main thread:
//   let json = try await BenchCoreML.run(folder: Bundle.main.resourceURL!.appendingPathComponent("FOLDER"))
//   try json.write(to: FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)[0]
//       .appendingPathComponent("coreml.json"))
// Then, where edgecsd is: edgecsd bench import coreml.json
//
// edgecsd's own tests run on Linux and cannot compile this file.

import CoreML
import CoreVideo
import Foundation

enum BenchCoreML {
    struct About: Decodable {
        let model: String
        let sha256: String
        let count: Int
        let size: Int
        let dim: Int
    }

    struct BenchError: Error {
        let text: String
    }

    static let choices: [(String, MLComputeUnits)] = [
        ("CPU_ONLY", .cpuOnly), ("CPU_AND_GPU", .cpuAndGPU), ("CPU_AND_NE", .cpuAndNeuralEngine), ("ALL", .all),
    ]

    /// The JSON for edgecsd bench import: load, first inference, warm series, embeddings.
    static func run(folder: URL, minRuns: Int = 200, minSeconds: Double = 10) async throws -> Data {
        let about = try JSONDecoder().decode(
            About.self, from: Data(contentsOf: folder.appendingPathComponent("bench.json")))
        let pixels = [UInt8](try Data(contentsOf: folder.appendingPathComponent("pixels.bin")))
        let images = try (0..<about.count).map { try image(pixels, number: $0, size: about.size) }
        let compiled = try await MLModel.compileModel(at: folder.appendingPathComponent(about.model))
        var measured: [String: Any] = [:]
        for (name, units) in choices {
            measured[name] = try measure(compiled, units, images, minRuns: minRuns, minSeconds: minSeconds)
        }
        let document: [String: Any] = [
            "kind": "edgecsd coreml measurement", "schema_version": 1, "tool": "Core ML in Swift",
            "device": machine(), "system": ProcessInfo.processInfo.operatingSystemVersionString,
            "model": about.model, "sha256": about.sha256, "compute_units": measured,
            "expected": try expected(folder, about),
        ]
        return try JSONSerialization.data(withJSONObject: document)
    }

    private static func measure(
        _ compiled: URL, _ units: MLComputeUnits, _ images: [MLFeatureProvider], minRuns: Int, minSeconds: Double
    ) throws -> [String: Any] {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        let start = now()
        let model = try MLModel(contentsOf: compiled, configuration: configuration)
        let loaded = now()
        _ = try embed(model, images[0])
        let first = now()
        var done = 0
        while done < 10 || Double(now() - first) < min(1, minSeconds) * 1e9 {
            _ = try embed(model, images[done % images.count])
            done += 1
        }
        var wall: [UInt64] = []
        let begun = now()
        while wall.count < minRuns || Double(now() - begun) < minSeconds * 1e9 {
            let before = now()
            _ = try embed(model, images[wall.count % images.count])
            wall.append(now() - before)
        }
        let embeddings = try images.map { try numbers(embed(model, $0)) }
        return [
            "load_ms": Double(loaded - start) / 1e6, "first_ms": Double(first - loaded) / 1e6,
            "wall_ns": wall.map { NSNumber(value: $0) }, "embeddings": embeddings,
        ]
    }

    private static func embed(_ model: MLModel, _ image: MLFeatureProvider) throws -> MLMultiArray {
        guard let embedding = try model.prediction(from: image).featureValue(for: "embedding")?.multiArrayValue else {
            throw BenchError(text: "the model gave no output called embedding")
        }
        return embedding
    }

    private static func numbers(_ embedding: MLMultiArray) -> [Double] {
        (0..<embedding.count).map { embedding[$0].doubleValue }
    }

    /// Image `number` of size x size x 3 RGB bytes, as the model takes it.
    private static func image(_ pixels: [UInt8], number: Int, size: Int) throws -> MLFeatureProvider {
        var made: CVPixelBuffer?
        let attributes = [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
        CVPixelBufferCreate(kCFAllocatorDefault, size, size, kCVPixelFormatType_32BGRA, attributes, &made)
        guard let buffer = made else { throw BenchError(text: "no pixel buffer of \(size) x \(size)") }
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        let bytes = CVPixelBufferGetBaseAddress(buffer)!.assumingMemoryBound(to: UInt8.self)
        let stride = CVPixelBufferGetBytesPerRow(buffer)
        for y in 0..<size {
            for x in 0..<size {
                let source = ((number * size + y) * size + x) * 3
                let to = y * stride + x * 4
                bytes[to] = pixels[source + 2]
                bytes[to + 1] = pixels[source + 1]
                bytes[to + 2] = pixels[source]
                bytes[to + 3] = 255
            }
        }
        return try MLDictionaryFeatureProvider(dictionary: ["image": MLFeatureValue(pixelBuffer: buffer)])
    }

    private static func expected(_ folder: URL, _ about: About) throws -> [[Double]] {
        let data = try Data(contentsOf: folder.appendingPathComponent("expected.bin"))
        let all = data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
        return (0..<about.count).map { number in
            all[(number * about.dim)..<((number + 1) * about.dim)].map(Double.init)
        }
    }

    private static func machine() -> String {
        var system = utsname()
        uname(&system)
        return withUnsafeBytes(of: &system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private static func now() -> UInt64 { DispatchTime.now().uptimeNanoseconds }
}
