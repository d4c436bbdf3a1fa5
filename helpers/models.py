"""The classifiers: the hand-written one, the library's, and the baselines that a fine-tuned model has to beat."""

import warnings

import numpy as np
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from helpers.device import CPU
from helpers.labels import known, label_shares
from helpers.quiet import quiet_loading

MEAN_SCALE = 1000.0  # how much more the mean weighs than the state it is added to


class DistilBERTClass(torch.nn.Module):
    """An encoder, its first token, and two linear layers that end in one logit a label.

    Parameters
    ----------
    checkpoint : str or path
        Any encoder that AutoModel loads.
    n_labels : int
    dropout : float
    attention : str, optional
        How attention is computed ("eager", "sdpa"); None is the library's choice.
    """

    def __init__(self, checkpoint, n_labels, dropout=0.2, attention=None):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation=attention)
        width = self.encoder.config.hidden_size
        self.pre_classifier = torch.nn.Linear(width, width)
        self.dropout = torch.nn.Dropout(dropout)
        self.classifier = torch.nn.Linear(width, n_labels)

    def forward(self, input_ids, attention_mask):
        """Logits, float32 of shape (batch, n_labels), from int64 tensors of shape (batch, length)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        first_token = hidden[:, 0]
        pooled = self.dropout(torch.relu(self.pre_classifier(first_token)))
        return self.classifier(pooled)


def load_tokenizer(checkpoint):
    """The tokenizer of a checkpoint (a folder or a hub name)."""
    return AutoTokenizer.from_pretrained(checkpoint)


def load_model(checkpoint, label_names=None, **config):
    """A multi-label AutoModelForSequenceClassification, without widgets; says which weights are new.

    Parameters
    ----------
    checkpoint : str or path
    label_names : list of str, optional
        Sets id2label and the size of the head. None: a fine-tuned model, loaded as it was saved.
    **config : further entries of the model's config, for instance seq_classif_dropout, and attn_implementation.
    """
    if label_names is not None:
        config.update(
            num_labels=len(label_names),
            problem_type="multi_label_classification",
            id2label=dict(enumerate(label_names)),
            label2id={name: i for i, name in enumerate(label_names)},
        )
    with quiet_loading():
        model, report = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, output_loading_info=True, dtype=torch.float32, **config
        )
    if report["missing_keys"]:
        print("Newly initialised, to be learned:", ", ".join(sorted(report["missing_keys"])))
    return model


def add_mean_pooling(model):
    """Append a block to a DistilBERT, after which each token's state is the mean over all tokens, normalised.

    A classifier that reads the first token thus reads the mean, and the model stays one that AutoModel loads
    (config.n_layers counts the block). In the block, queries and keys are 0, so that attention is equal over the tokens
    of the mask; values pass unchanged; the output is scaled up until what the block adds it to no longer matters; the
    feed-forward part is 0. Only the layer's normalisation is left of it, which has nothing to learn here: the block is
    frozen.

    Parameters
    ----------
    model : a DistilBERT of transformers, or a classifier with one inside; changed in place

    Returns
    -------
    The model.

    Raises
    ------
    ValueError
        When the model is no DistilBERT: other families name and order the parts of a layer differently.
    """
    from transformers.models.distilbert.modeling_distilbert import DistilBertModel, TransformerBlock

    encoder = next((module for module in model.modules() if isinstance(module, DistilBertModel)), None)
    if encoder is None:
        raise ValueError(f"mean pooling by a block is for DistilBERT, not for {type(model).__name__}")
    stack = encoder.transformer
    block = TransformerBlock(encoder.config).to(next(encoder.parameters()))
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if name not in ("sa_layer_norm.weight", "output_layer_norm.weight"):
                parameter.zero_()
        block.attention.v_lin.weight.fill_diagonal_(1)
        block.attention.out_lin.weight.fill_diagonal_(MEAN_SCALE)
    block.requires_grad_(False)
    for dropout in (block.attention.dropout, block.ffn.dropout):
        dropout.p = 0.0
    stack.layer.append(block)
    stack.n_layers = encoder.config.n_layers = len(stack.layer)
    return model


def to_probabilities(logits):
    """The sigmoid of logits (a tensor or an array, of any shape and float dtype), as a float32 array of that shape."""
    return torch.sigmoid(torch.as_tensor(logits).float()).cpu().numpy()


def sentence_embeddings(checkpoint, texts, max_len=128, compute=CPU, batch_size=32):
    """Mean-pooled hidden states of a frozen encoder.

    Returns
    -------
    float32 array of shape (n_texts, hidden_size), in the order of the texts, each row of length 1.
    """
    texts = list(texts)
    tokenizer = load_tokenizer(checkpoint)
    with quiet_loading():
        encoder = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).to(compute.device).eval()
    vectors = np.zeros((len(texts), encoder.config.hidden_size), dtype=np.float32)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(texts), batch_size):
        rows = by_length[start : start + batch_size]
        inputs = tokenizer(
            [texts[i] for i in rows],
            truncation=True,
            max_length=max_len,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(compute.device)
        with torch.inference_mode(), compute.autocast():
            hidden = encoder(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        vectors[rows] = torch.nn.functional.normalize(mean, dim=1).float().cpu().numpy()
    return vectors


def _one_per_label(classifier, X_train, y_train, X):
    """Probabilities of clones of a scikit-learn classifier, one a label, on the texts of which the label is known.

    A label that never varies gets its share. `classifier(n)` makes one that can be fitted to n examples of the rarer
    answer.
    """
    y_prob = np.tile(label_shares(y_train).astype(float), (X.shape[0], 1))
    for k, (y, rows) in enumerate(zip(y_train.T, known(y_train).T, strict=True)):
        n = int(min((y == 1).sum(), (y == 0).sum()))
        if n:
            y_prob[:, k] = classifier(n).fit(X_train[rows], y[rows]).predict_proba(X)[:, 1]
    return y_prob


def _balanced_regression(n):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(class_weight="balanced", max_iter=1000)


def all_zeros(texts, y_train, new_texts):
    """Probability 0 for every label: what "predict nothing" scores. Shape (n_new, n_labels)."""
    return np.zeros((len(new_texts), y_train.shape[1]))


def label_prior(texts, y_train, new_texts):
    """Each label's share in train, for every text. Shape (n_new, n_labels)."""
    return np.tile(label_shares(y_train), (len(new_texts), 1))


def _without_words(texts, y_train, new_texts):
    warnings.warn(
        "TF-IDF found no words in the training texts; the baseline falls back to the label prior", stacklevel=3
    )
    return label_prior(texts, y_train, new_texts)


def tfidf_regression(texts, y_train, new_texts):
    """TF-IDF of words and word pairs, and a balanced logistic regression a label. Shape (n_new, n_labels)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        X_train = vectorizer.fit_transform(texts)
    except ValueError:  # no text holds a word of two letters or more
        return _without_words(texts, y_train, new_texts)
    return _one_per_label(_balanced_regression, X_train, y_train, vectorizer.transform(new_texts))


def linear_svm(texts, y_train, new_texts):
    """TF-IDF of words, word pairs and pieces of two to five characters, and a linear SVM a label.

    The strongest of the cheap models here. Its scores become probabilities by Platt's sigmoid, fitted to scores from
    cross-validation, which leaves the ranking as it is (Platt, 1999; Joachims, 1998, doi:10.1007/BFb0026683, for SVMs
    on words). A label with a single positive (or negative) gets its share.

    Returns
    -------
    float array of shape (n_new, n_labels)
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union
    from sklearn.svm import LinearSVC

    vectorizer = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )

    class Calibrated(CalibratedClassifierCV):
        def fit(self, X, y):
            super().fit(X, y)
            sigmoid = self.calibrated_classifiers_[0].calibrators[0]
            sigmoid.a_ = min(sigmoid.a_, -1e-6)  # fitted to two or three positives it may fall, and turn the ranking
            return self

    def classifier(n):
        return Calibrated(LinearSVC(), cv=min(3, n), ensemble=False) if n > 1 else DummyClassifier()

    try:
        X_train = vectorizer.fit_transform(texts)
    except ValueError:
        return _without_words(texts, y_train, new_texts)
    return _one_per_label(classifier, X_train, y_train, vectorizer.transform(new_texts))


def blend(predictions, reference=None):
    """The mean of several models' standardised logits, as probabilities.

    Models that err on different texts correct each other. Before the mean, each model's logits of a label are brought
    to mean 0 and standard deviation 1, so that none outweighs the others; after it, back to the models' mean scale.

    Parameters
    ----------
    predictions : sequence of float arrays of shape (n_examples, n_labels)
        The models' probabilities for the same texts.
    reference : sequence of float arrays of shape (n_others, n_labels), optional
        The same models' probabilities for the texts from which mean and deviation are taken: validation, when
        `predictions` are of test or of single texts. Default: `predictions`.

    Returns
    -------
    float32 array of shape (n_examples, n_labels)
    """
    from scipy.special import logit

    def logits(some):
        return np.stack([logit(np.clip(np.asarray(y_prob, dtype=float), 1e-7, 1 - 1e-7)) for y_prob in some])

    known = logits(predictions if reference is None else reference)
    mean, deviation = known.mean(axis=1, keepdims=True), known.std(axis=1, keepdims=True)
    standard = (logits(predictions) - mean) / np.where(deviation > 1e-9, deviation, 1.0)
    return to_probabilities(standard.mean(axis=0) * deviation.mean(axis=0) + mean.mean(axis=0))


def frozen_regression(texts, y_train, new_texts, checkpoint, max_len=128, compute=CPU):
    """Frozen encoder, mean-pooled, and a balanced logistic regression a label. Shape (n_new, n_labels)."""
    X_train, X = (sentence_embeddings(checkpoint, some, max_len, compute) for some in (texts, new_texts))
    return _one_per_label(_balanced_regression, X_train, y_train, X)
