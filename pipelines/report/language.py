"""Titles of sections, heads of tables and names of axes in the language of `report.language`."""

from collections.abc import Callable
from typing import Literal

Say = Callable[[str], str]
JAPANESE = {
    "Contents": "目次",
    "Confusion matrix": "混同行列",
    "What it is": "正解",
    "What the model said": "予測",
    "Look-alikes": "見分けにくい組",
    "What to do first": "まずすること",
    "Mistakes": "すべての誤り",
    "What changed": "前回からの変化",
    "Classes": "クラス",
    "Factors": "要因",
    "Training": "学習",
    "Members": "モデル",
    "Calibration and abstention": "確信度と棄却",
    "More pictures or a better model": "画像を増やすか、モデルを変えるか",
    "Robustness": "頑健性",
    "Strangers": "未知の画像",
    "Slices": "部分集合",
    "Map of the pictures": "画像の地図",
    "Suspects": "疑わしいラベル",
    "The data": "データ",
    "What is in order": "問題のない項目",
    "Accuracy": "正解率",
    "Balanced accuracy": "平均再現率",
    "Weakest class": "最も弱いクラス",
    "Test pictures": "テスト画像",
    "Class": "クラス",
    "Recall": "再現率",
    "Precision": "適合率",
    "F1": "F値",
    "Average precision": "平均適合率",
    "Learnt from": "学習画像",
    "Most taken for": "主な誤り先",
    "Loss": "損失",
    "Epoch": "エポック",
    "C, the inverse of regularisation (larger fits closer)": "C（正則化の逆数）",
    "Confidence": "確信度",
    "Right": "正しい割合",
    "Share answered": "回答する割合",
    "Pictures learnt from": "学習画像の数",
    "Strength": "強さ",
    "Before": "前回",
    "Now": "今回",
    "Difference": "差",
}
"""what each English text is called; a test compares with the texts that code and templates ask for"""


def sayer(language: Literal["en", "ja"]) -> Say:
    """A function from the English text to that of the language."""
    return str if language == "en" else JAPANESE.__getitem__
