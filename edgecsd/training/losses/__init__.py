"""Label-free losses that work from cached gallery features; one a file, each with its paper.

q: query embeddings (B, D); g: gallery features of the same images (B, D); C_q, C_g (B, K + 1): their cosines to the
anchors, g itself first. All are pure functions, means over the batch, computed in float32 (float64 stays).

| name       | function              | paper                                          | what it sees                   |
|------------|-----------------------|------------------------------------------------|--------------------------------|
| csd-kl     | csd_kl.csd_kl         | Contextual Similarity Distillation, CVPR 2022  | C_q, C_g as distributions      |
| csd-l2     | csd_norms.csd_l2      | the same                                       | C_q, C_g as vectors, L2        |
| csd-l1     | csd_norms.csd_l1      | the same                                       | C_q, C_g as vectors, L1        |
| regression | regression.regression | Asymmetric Metric Learning, CVPR 2021          | q, g                           |
| ssp        | ssp.ssp               | Structure Similarity Preservation, 2024        | q, g, centroids of a codebook  |
| rop        | rop.rop               | A General Rank Preserving Framework, ICLR 2023 | C_q, C_g of the nearest        |
| d3still    | d3still.d3still       | D3still, CVPR 2024                             | C_q, C_g of the nearest        |
| raml       | raml.raml             | Large-to-small Resolution Asymmetry, WACV 2023 | q, g of the whole batch        |

training/choices.py has their names, their terms and the methods that need more than features; it loads no torch.
"""
