// Does the app compute what @NAME@ must give? Written by edgecsd golden; plain Kotlin (1.3 or later), no library.
//
//   val result = GoldenTest(app) { name -> assets.open("golden/$name").readBytes() }.run()
//   assertTrue(result.lines.joinToString("\n"), result.passed)

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.sqrt

/** Upright pixels, RGB, height x width x 3, rows from the top. */
class GoldenImage(val rgb: ByteArray, val width: Int, val height: Int)

/** What the app implements; decode and search may be left out. */
interface GoldenApp {
    /** An encoded photo -> @SIZE@ x @SIZE@ x 3, RGB, rows from the top, 0 to 255. */
    fun preprocess(photo: ByteArray): ByteArray

    /** That array through the file -> @DIM@ numbers. */
    fun embed(tensor: ByteArray): FloatArray

    /** Tells wrong decoding from wrong resizing. */
    fun decode(photo: ByteArray): GoldenImage? = null

    /** Ids from the index, best first. */
    fun search(embedding: FloatArray, k: Int): List<String>? = null
}

class GoldenItem(val name: String, val orientation: Int, val width: Int, val height: Int, val ids: List<String>)

class GoldenResult(val passed: Boolean, val lines: List<String>)

class GoldenTest(private val app: GoldenApp, private val load: (String) -> ByteArray) {
    companion object {
        const val ARTIFACT = "@SHA256@" // SHA-256 of the file that this pack is of
        const val FINGERPRINT = "@FINGERPRINT@" // of the embedding space
        const val SIZE = @SIZE@
        const val GRID = @GRID@
        const val K = @K@
        const val DECODED_MEAN = @DECODED_MEAN@
        const val TENSOR_MEAN = @TENSOR_MEAN@
        const val TENSOR_MAX = @TENSOR_MAX@
        const val COSINE = @COSINE@
        const val MAX_DIFFERENCE = @MAX_DIFFERENCE@
        const val NORM_ERROR = @NORM_ERROR@
        const val END_TO_END_COSINE = @END_TO_END_COSINE@
        const val OVERLAP = @OVERLAP@
        const val EXPLAINED = 0.25 // a mistake explains a deviation if it leaves at most this share of it
    }

    private val mistakes = listOf(
@MISTAKES@
    )
    private val items = listOf(
@ITEMS@
    )
    private val causes = mapOf(
        "decoding" to "the decoder: orientation, channel order, or a colour profile that was applied",
        "preprocessing" to "the decoding above; if that passed, resize, crop or channel order are not the pixel contract in golden.json",
        "runtime" to "the runtime: another file, a delegate in low precision, or an input of another layout or range",
        "end to end" to "the preprocessing above; if that passed, the tensor changes between preprocess and embed",
        "results" to "the index or its search parameters; or an embedding above"
    )
    private val failures = causes.keys.associateWith { mutableListOf<String>() }
    private val counts = mutableMapOf<String, Int>()
    private val pixelErrors = Explanation()
    private val vectorErrors = Explanation()
    private var turned = "" // of a photo with an EXIF orientation that decodes wrongly
    private var uprightWrong = false

    fun run(): GoldenResult {
        val manifest = String(load("golden.json"), Charsets.UTF_8)
        check(ARTIFACT in manifest) { "this self-test and golden.json are of two different packs" }
        val overlaps = items.mapNotNull { measure(it) }
        if (overlaps.isNotEmpty()) {
            note("results", "all photos", overlaps.average() >= OVERLAP, "overlap@$K ${overlaps.average()}")
        }
        val explained = mapOf(
            "decoding" to if (uprightWrong) "" else turned,
            "preprocessing" to pixelErrors.nearest(TENSOR_MEAN),
            "runtime" to vectorErrors.nearest(1 - COSINE)
        )
        val lines = counts.flatMap { (stage, count) ->
            val wrong = failures.getValue(stage)
            val cause = explained[stage].orEmpty()
            val told = if (cause == "") causes.getValue(stage) else "this looks like: $cause"
            val head = "${if (wrong.isEmpty()) "pass" else "FAIL"}  $stage: ${count - wrong.size} of $count"
            if (wrong.isEmpty()) listOf(head) else listOf(head, "      $told") + wrong.map { "      $it" }
        }
        return GoldenResult(failures.values.all { it.isEmpty() }, lines)
    }

    /** The share of the expected ids that are found; null where they are not asked for. */
    private fun measure(item: GoldenItem): Double? {
        val photo = load("photos/${item.name}.jpg")
        val wanted = load("tensors/${item.name}.bin")
        val expected = floats(load("embeddings/${item.name}.bin"))
        val samples = load("signatures/${item.name}-samples.bin")
        val mistaken = floats(load("signatures/${item.name}-embeddings.bin"))
        val signature = { place: Int -> samples.copyOfRange(place * GRID * GRID * 3, (place + 1) * GRID * GRID * 3) }

        app.decode(photo)?.let { image ->
            val fits = image.width == item.width && image.height == item.height
            val error = if (fits) mean(sampled(image.rgb, image.width, image.height), signature(0)) else 255.0
            val shown = "${image.width} x ${image.height}, expected ${item.width} x ${item.height}, difference $error"
            val right = fits && error <= DECODED_MEAN
            if (!right && item.orientation == 1) uprightWrong = true
            if (!right && item.orientation != 1) turned = "EXIF orientation ${item.orientation} ignored or misapplied"
            note("decoding", item.name, right, shown)
        }

        val tensor = app.preprocess(photo)
        val fits = tensor.size == wanted.size
        val error = if (fits) mean(tensor, wanted) else 255.0
        val most = if (fits) wanted.indices.fold(0) { most, i -> max(most, level(tensor, wanted, i)) } else 255
        val near = error <= TENSOR_MEAN && most <= TENSOR_MAX
        note("preprocessing", item.name, near, "${tensor.size} bytes, mean difference $error, largest $most")
        if (fits && !near) {
            val own = sampled(tensor, SIZE, SIZE)
            pixelErrors.add(mean(own, signature(1))) { mean(own, signature(it + 2)) }
        }

        val given = app.embed(wanted.copyOf())
        val alike = cosine(given, expected)
        val length = sqrt(dot(given, given))
        val exact = alike >= COSINE && expected.indices.all { abs(expected[it] - given[it]) <= MAX_DIFFERENCE }
        val same = exact && abs(length - 1) <= NORM_ERROR
        note("runtime", item.name, same, "cosine $alike, length $length")
        if (!same) {
            val dim = expected.size
            vectorErrors.add(1 - alike) { 1 - cosine(given, mistaken.copyOfRange(it * dim, (it + 1) * dim)) }
        }

        val own = if (fits) app.embed(tensor) else FloatArray(0)
        val through = cosine(own, expected)
        note("end to end", item.name, through >= END_TO_END_COSINE, "cosine $through")
        if (item.ids.isEmpty() || !fits) return null
        val found = app.search(own, K)?.take(K)?.toSet() ?: return null
        return item.ids.count { it in found }.toDouble() / item.ids.size
    }

    private fun note(stage: String, photo: String, right: Boolean, figure: String) {
        counts[stage] = (counts[stage] ?: 0) + 1
        if (!right) failures.getValue(stage).add("$photo: $figure")
    }

    /** Sums, over the photos that are wrong, how far the app's values are from the right ones and each mistake's. */
    private inner class Explanation {
        private var right = 0.0
        private var count = 0
        private val mistaken = DoubleArray(mistakes.size)

        fun add(error: Double, distance: (Int) -> Double) {
            right += error
            count += 1
            for (m in mistaken.indices) mistaken[m] += distance(m)
        }

        fun nearest(tolerance: Double): String {
            val best = mistaken.indices.fold(0) { best, m -> if (mistaken[m] < mistaken[best]) m else best }
            val least = mistaken[best]
            val clear = least <= EXPLAINED * right || (least < right / 2 && least <= tolerance * count)
            return if (count > 0 && clear) mistakes[best] else ""
        }
    }

    /** The RGB values at GRID x GRID places, rows and columns floor((i + 0.5) side / GRID). */
    private fun sampled(rgb: ByteArray, width: Int, height: Int): ByteArray {
        val out = ByteArray(GRID * GRID * 3)
        for (y in 0 until GRID) for (x in 0 until GRID) {
            val at = ((2 * y + 1) * height / (2 * GRID) * width + (2 * x + 1) * width / (2 * GRID)) * 3
            rgb.copyInto(out, (y * GRID + x) * 3, at, at + 3)
        }
        return out
    }

    private fun level(one: ByteArray, other: ByteArray, i: Int) =
        abs((one[i].toInt() and 255) - (other[i].toInt() and 255))

    private fun mean(one: ByteArray, other: ByteArray) =
        other.indices.fold(0.0) { sum, i -> sum + level(one, other, i) } / other.size

    private fun dot(one: FloatArray, other: FloatArray) =
        one.indices.fold(0.0) { sum, i -> sum + one[i].toDouble() * other[i] }

    private fun floats(data: ByteArray): FloatArray {
        val buffer = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(buffer.remaining()).also { buffer.get(it) }
    }

    /** NaN, which fails every comparison, for vectors of another length, of zeros, or with what is not finite. */
    private fun cosine(one: FloatArray, other: FloatArray): Double {
        if (one.size != other.size) return Double.NaN
        return dot(one, other) / sqrt(dot(one, one) * dot(other, other))
    }
}
